"""The arithmetic: advantages, the distance to the teacher, and each algorithm's loss and step."""

import math

import numpy as np
import pytest
import torch

from tests.algos.scripts import a2c, loss_of, ppo


def gae(script, rewards, values, dones, next_value, next_done, **flags):
    nothing = torch.zeros(0)
    rollout = script.Rollout(nothing, dones, nothing, nothing, values, rewards)
    return script.compute_gae(rollout, torch.tensor([next_value]), torch.tensor([next_done]), script.Args(**flags))


def test_gae_of_constant_rewards_is_the_geometric_sum_of_the_td_errors():
    steps, gamma, lam, reward, value = 6, 0.9, 0.8, 1.0, 0.5
    ones = torch.ones(steps, 1)
    advantages, returns = gae(ppo, reward * ones, value * ones, 0 * ones, value, 0.0, gamma=gamma, gae_lambda=lam)
    delta = reward + gamma * value - value
    expected = [delta * (1 - (gamma * lam) ** left) / (1 - gamma * lam) for left in range(steps, 0, -1)]
    torch.testing.assert_close(advantages[:, 0], torch.tensor(expected))
    torch.testing.assert_close(returns, advantages + value)


def test_gae_credits_the_step_that_ends_an_episode_with_its_reward_and_nothing_after_it():
    rewards = torch.tensor([[0.0], [5.0], [100.0]])
    values = torch.tensor([[1.0], [2.0], [70.0]])
    begins_new_episode = torch.tensor([[1.0], [0.0], [1.0]])
    advantages, _ = gae(ppo, rewards, values, begins_new_episode, 1e6, 1.0, gamma=0.9, gae_lambda=0.8)
    last, ending = 100 - 70, 5 - 2
    torch.testing.assert_close(advantages[:, 0], torch.tensor([0.9 * 2 - 1 + 0.9 * 0.8 * ending, ending, last]))


def test_with_a2cs_default_lambda_the_returns_are_discounted_sums_with_the_last_value():
    rewards, gamma = torch.tensor([[1.0], [0.0], [2.0]]), 0.9
    _, returns = gae(a2c, rewards, torch.randn(3, 1), torch.zeros(3, 1), 4.0, 0.0, gamma=gamma)
    last = 2 + gamma * 4
    torch.testing.assert_close(returns[:, 0], torch.tensor([1 + gamma**2 * last, gamma * last, last]))


def test_distillation_loss_is_the_kl_from_teacher_to_student_of_the_rows_with_advice():
    teacher = torch.tensor([[0.5, 0.5, 0.0], [math.nan, 9.0, 9.0], [0.0, 1.0, 0.0]])
    student = torch.tensor([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]])
    loss = ppo.distillation_loss(teacher, student.log(), torch.tensor([True, False, True]))
    by_hand = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.5) + math.log(1 / 0.6)) / 2
    assert loss.item() == pytest.approx(by_hand)


def test_distillation_loss_is_zero_where_the_student_agrees():
    probs = torch.tensor([[0.9, 0.1, 0.0]])
    assert ppo.distillation_loss(probs, (probs + 1e-12).log(), torch.tensor([True])).item() == pytest.approx(
        0, abs=1e-6
    )


def test_without_any_advice_the_distillation_loss_and_its_gradient_are_zero():
    logits = torch.zeros(2, 3, requires_grad=True)
    loss = ppo.distillation_loss(torch.zeros(2, 3), logits.log_softmax(-1), torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def student_and_batch(script, rows=8, seed=0):
    """An untrained student, and a batch that it collected, with advice for every other row."""
    torch.manual_seed(seed)
    envs = script.make_envs(script.Args(lam=0), "run")
    envs.single_observation_space.seed(seed)
    agent = script.Agent(envs)
    obs = torch.as_tensor(np.stack([envs.single_observation_space.sample() for _ in range(rows)]))
    with torch.no_grad():
        actions, logprobs, _, values, _ = agent.get_action_and_value(obs)
    advantages = torch.randn(rows)
    columns = {
        "obs": obs,
        "actions": actions,
        "logprobs": logprobs,
        "values": values,
        "advantages": advantages,
        "returns": values + advantages,
        "teacher_probs": torch.randn(rows, envs.single_action_space.n).softmax(-1),
        "teacher_mask": torch.arange(rows) % 2 == 0,
    }
    return agent, script.Batch(*(columns[name] for name in script.Batch._fields))


def test_lam_adds_just_its_multiple_of_the_kl_to_the_loss(script):
    agent, batch = student_and_batch(script)
    plain, _ = loss_of(script)(agent, batch, script.Args(), lam=0)
    taught, measured = loss_of(script)(agent, batch, script.Args(), lam=3)
    kl = script.distillation_loss(batch.teacher_probs, agent.get_action_and_value(batch.obs)[4], batch.teacher_mask)
    assert kl > 0
    assert taught.item() == pytest.approx(plain.item() + 3 * kl.item(), rel=1e-5)
    assert measured["teacher/kl"] == pytest.approx(kl.item())


def test_where_the_teacher_has_several_best_actions_the_student_agrees_with_any_of_them(script):
    agent, batch = student_and_batch(script)
    favourite = agent.get_action_and_value(batch.obs)[4].argmax(-1)
    best = torch.nn.functional.one_hot(favourite, 7) + torch.nn.functional.one_hot((favourite + 1) % 7, 7)
    for probs, agreement in ((best / 2, 1), (1 - best.float(), 0)):
        _, measured = loss_of(script)(agent, batch._replace(teacher_probs=probs), script.Args(), lam=1)
        assert measured["teacher/agreement"] == agreement


def test_the_first_pass_of_ppo_over_a_batch_is_on_policy():
    agent, batch = student_and_batch(ppo)
    _, measured = ppo.ppo_loss(agent, batch, ppo.Args(), lam=0)
    assert measured["losses/approx_kl"] == pytest.approx(0, abs=1e-6)
    assert measured["losses/clipfrac"] == 0


def test_a2cs_loss_is_policy_gradient_less_entropy_plus_half_the_squared_error_of_the_value():
    agent, batch = student_and_batch(a2c)
    loss, measured = a2c.a2c_loss(agent, batch, a2c.Args(ent_coef=0.03, vf_coef=0.7), lam=0)
    with torch.no_grad():
        logprobs, values = agent(batch.obs)
        probs = logprobs.exp().double()
    policy = -np.mean([batch.advantages[i] * math.log(probs[i, a]) for i, a in enumerate(batch.actions)])
    entropy = np.mean([-sum(p * math.log(p) for p in row) for row in probs.tolist()])
    value = np.mean([(values[i] - batch.returns[i]) ** 2 for i in range(len(values))]) / 2
    assert measured["losses/policy_loss"] == pytest.approx(policy, rel=1e-4)
    assert measured["losses/entropy"] == pytest.approx(entropy, rel=1e-4)
    assert measured["losses/value_loss"] == pytest.approx(value, rel=1e-4)
    assert loss.item() == pytest.approx(policy - 0.03 * entropy + 0.7 * value, rel=1e-4)


def test_a2c_normalizes_advantages_only_if_asked():
    agent, batch = student_and_batch(a2c)
    scaled = batch._replace(advantages=5 + 3 * batch.advantages)

    def policy_loss(batch, **flags):
        return a2c.a2c_loss(agent, batch, a2c.Args(**flags), lam=0)[1]["losses/policy_loss"]

    assert policy_loss(scaled) != pytest.approx(policy_loss(batch), rel=0.1)
    assert policy_loss(scaled, norm_adv=True) == pytest.approx(policy_loss(batch, norm_adv=True), abs=1e-5)


def test_an_update_of_a2c_is_one_step_of_adam_along_the_clipped_gradient_of_the_whole_batch():
    args = a2c.Args(max_grad_norm=0.01)
    agent, batch = student_and_batch(a2c)
    a2c.a2c_loss(agent, batch, args, lam=1)[0].backward()
    gradients = [weights.grad.clone() for weights in agent.parameters()]
    clip = min(1, 0.01 / torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
    expected = [
        weights.detach() - 1e-3 * clip * gradient / ((clip * gradient).abs() + 1e-5)
        for weights, gradient in zip(agent.parameters(), gradients, strict=True)
    ]
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3, eps=1e-5)
    a2c.update(agent, optimizer, batch, args, lam=1)
    assert clip < 1
    for weights, wanted in zip(agent.parameters(), expected, strict=True):
        torch.testing.assert_close(weights.detach(), wanted, rtol=1e-4, atol=1e-6)
