"""Proximal policy optimisation of a linear policy in plain numpy: every gradient written out, loops over minibatches.

The parameters are VectorPolicy's without hidden layers: logits = x W + b, value = x u + c.
"""

import numpy as np


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def linear(params, x):
    """x [N, F] -> (logits [N, M], value [N])."""
    logits = x @ params["logits"]["kernel"] + params["logits"]["bias"]
    return logits, (x @ params["value"]["kernel"] + params["value"]["bias"])[:, 0]


def decisions(params, config, rollout):
    """Columns x, action, log_prob, value, advantage of B * H decisions; advantages forwards, as sums of errors."""
    columns = [[], [], [], [], []]
    for x, action, reward, discount in zip(*vars(rollout).values(), strict=True):
        logits, value = linear(params, x)
        horizon = len(reward)
        for t in range(horizon):
            advantage, weight = 0.0, 1.0
            for u in range(t, horizon):
                goes_on = config.discount * discount[u] * (config.bootstrap or u < horizon - 1)
                advantage += weight * (reward[u] + goes_on * value[u + 1] - value[u])
                weight *= goes_on * config.gae_lambda
            log_prob = log_softmax(logits[t])[action[t].argmax()]
            for column, item in zip(columns, (x[t], action[t], log_prob, value[t], advantage), strict=True):
                column.append(item)
    return [np.array(column, np.float64) for column in columns]


def gradient(params, config, x, action, old_log_prob, old_value, advantage):
    """Gradient of the loss on one minibatch, and its metrics."""
    n = len(x)
    logits, value = linear(params, x)
    log_probs = log_softmax(logits)
    probs = np.exp(log_probs)
    target = advantage + old_value
    scaled = (advantage - advantage.mean()) / advantage.std()

    ratio = np.exp((action * log_probs).sum(-1) - old_log_prob)
    low, high = 1 - config.clip, 1 + config.clip
    clipped = np.where(scaled > 0, ratio > high, ratio < low)  # where the objective is flat
    objective = np.where(clipped, np.clip(ratio, low, high), ratio) * scaled
    d_log_prob = np.where(clipped, 0, -scaled * ratio) / n
    d_logits = d_log_prob[:, None] * (action - probs)

    entropy = -(probs * log_probs).sum(-1)
    d_logits += config.entropy * probs * (log_probs + entropy[:, None]) / n

    near = old_value + np.clip(value - old_value, -config.clip, config.clip)
    worse = (near - target) ** 2 > (value - target) ** 2  # then the change in value was too large: flat
    value_loss = 0.5 * np.where(worse, near - target, value - target) ** 2
    d_value = config.value_scale * np.where(worse, 0, value - target)[:, None] / n

    grads = dict(
        logits=dict(kernel=x.T @ d_logits, bias=d_logits.sum(0)), value=dict(kernel=x.T @ d_value, bias=d_value.sum(0))
    )
    norm = np.sqrt(sum((g**2).sum() for layer in grads.values() for g in layer.values()))
    metrics = dict(
        policy_loss=-objective.mean(),
        value_loss=value_loss.mean(),
        entropy=entropy.mean(),
        kl=(ratio - 1 - np.log(ratio)).mean(),
        clip_fraction=(abs(ratio - 1) > config.clip).mean(),
        grad_norm=norm,
    )
    return grads, metrics


def update(params, config, rollout, batches):
    """One round from fresh Adam moments; batches: index arrays. Returns (params, mean metrics)."""
    params = {name: {k: np.asarray(v, np.float64) for k, v in layer.items()} for name, layer in params.items()}
    columns = decisions(params, config, rollout)
    value = columns[3]
    moments = {name: {k: [0.0, 0.0] for k in layer} for name, layer in params.items()}
    rows = []
    for count, index in enumerate(batches, 1):
        grads, metrics = gradient(params, config, *(column[index] for column in columns))
        scale = min(1.0, config.clip_norm / metrics["grad_norm"])
        for name, layer in grads.items():
            for k, g in layer.items():
                g = g * scale
                first, second = moments[name][k]
                moments[name][k] = first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
                step = (first / (1 - 0.9**count)) / (np.sqrt(second / (1 - 0.999**count)) + config.adam_epsilon)
                params[name][k] = params[name][k] - config.learning_rate * step
        rows.append(metrics)
    metrics = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
    metrics["return_mean"] = np.mean([sum(row) for row in rollout.reward])
    metrics["value_mean"] = value.mean()
    return params, metrics
