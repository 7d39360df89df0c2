"""A page as a tree of elements, as html.parser reads it."""

from html.parser import HTMLParser

_VOID = {"meta", "link", "input", "br", "hr", "img"}


class Element:
    """An element: its tag, attributes and children, which are elements and texts."""

    def __init__(self, tag, attributes, parent=None):
        self.tag, self.attributes, self.parent, self.children = tag, dict(attributes), parent, []

    def __getitem__(self, name):
        return self.attributes[name]

    def all(self, tag=None, **wanted):
        """The elements below with a tag and attributes, in the order of the page; ``kind`` is one of the classes."""
        kind = wanted.pop("kind", None)
        for child in self.children:
            if isinstance(child, Element):
                fits = tag in (None, child.tag) and all(child.attributes.get(k) == v for k, v in wanted.items())
                if fits and (kind is None or kind in (child.attributes.get("class") or "").split()):
                    yield child
                yield from child.all(tag, **wanted, **({} if kind is None else {"kind": kind}))

    def one(self, tag=None, **wanted):
        (found,) = self.all(tag, **wanted)
        return found

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def words(self):
        """The text with single spaces, also between elements."""
        return " ".join(" ".join(child if isinstance(child, str) else child.words for child in self.children).split())

    @property
    def shape(self):
        """Every tag with its attributes' names, in order: what a text must not be able to change."""
        return [(element.tag, sorted(element.attributes)) for element in self.all()]


class _Builder(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.at = self.root = Element("root", ())

    def handle_startendtag(self, tag, attrs):
        self.at.children.append(Element(tag, attrs, self.at))

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self.at = self.at.children[-1]

    def handle_endtag(self, tag):
        assert tag == self.at.tag, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def parse(html):
    """The page's root; fails where elements are not closed in order."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert builder.at is builder.root, f"<{builder.at.tag}> stays open"
    return builder.root
