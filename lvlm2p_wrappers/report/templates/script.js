"use strict";
// Filters the views. The address holds the choice, so that it can be passed on. The script works on what the page
// holds: it compares and writes values as text, never as markup.
(() => {
  const form = document.getElementById("filters");
  const views = [...document.querySelectorAll("article.view")];
  const selects = [...form.querySelectorAll("select")];
  const marks = form.elements.marks;
  const shown = document.getElementById("shown");
  const clear = document.getElementById("clear");
  const nothing = document.getElementById("nothing");

  const fits = (view, but) =>
    selects.every((select) => select === but || !select.value || view.dataset[select.name] === select.value);

  function apply() {
    let count = 0;
    for (const view of views) {
      view.hidden = !fits(view);
      count += !view.hidden;
    }
    for (const select of selects) {
      // How many views each choice would leave, the other filters staying as they are.
      const left = new Map();
      for (const view of views) {
        if (fits(view, select)) {
          const value = view.dataset[select.name];
          left.set(value, (left.get(value) || 0) + 1);
          left.set("", (left.get("") || 0) + 1);
        }
      }
      for (const option of select.options) {
        option.textContent = `${option.dataset.label} (${left.get(option.value) || 0})`;
      }
    }
    if (marks) document.body.classList.toggle("without-marks", !marks.checked);
    shown.textContent = `${count} of ${views.length} views`;
    nothing.hidden = count > 0 || views.length === 0;
    clear.hidden = selects.every((select) => !select.value);
  }

  function remember() {
    const state = new URLSearchParams();
    for (const select of selects) {
      if (select.value) state.set(select.name, select.value);
    }
    if (marks && !marks.checked) state.set("marks", "off");
    history.replaceState(null, "", "#" + state);
  }

  function recall() {
    if (location.hash && !location.hash.includes("=")) return; // the address of a place on the page
    const state = new URLSearchParams(location.hash.slice(1));
    for (const select of selects) {
      select.value = state.get(select.name) || "";
      if (select.selectedIndex < 0) select.value = "";
    }
    if (marks) marks.checked = state.get("marks") !== "off";
    apply();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    apply();
    remember();
  });
  clear.addEventListener("click", () => {
    for (const select of selects) select.value = "";
    apply();
    remember();
    if (selects.length) selects[0].focus();
  });
  window.addEventListener("hashchange", recall);

  // A text that many messages share stands once on the page, and is copied to where it is opened.
  document.addEventListener("toggle", (event) => {
    const place = event.target.open ? event.target.querySelector(":scope > pre[data-text]") : null;
    if (place) {
      place.textContent = document.querySelector(`#${place.dataset.text} > pre`).textContent;
      delete place.dataset.text;
    }
  }, true);

  form.hidden = false;
  apply();
  recall();
})();
