"""LRP for one image, as plain loops: every layer is a list of the values that each of its outputs adds up.

A value's place is an index into the layer's flattened values.
"""

import math

Connections = list[list[tuple[int, float]]]
"""For each output the places of the inputs that it adds up, and their weights."""


def dense(weight: list[list[float]]) -> Connections:
    """A row of weights an output."""
    return [list(enumerate(row)) for row in weight]


def convolution(weight: list, height: int, width: int, padding: int) -> tuple[Connections, int, int]:
    """Weights [outputs][inputs][k][k] at every place of a zero-padded picture, and the result's height and width."""
    size = len(weight[0][0])
    rows, columns = height + 2 * padding - size + 1, width + 2 * padding - size + 1
    found = []
    for kernel in weight:
        for top in range(rows):
            for left in range(columns):
                here = []
                for channel, plane in enumerate(kernel):
                    for i in range(size):
                        for j in range(size):
                            row, column = top + i - padding, left + j - padding
                            if 0 <= row < height and 0 <= column < width:
                                here.append((channel * height * width + row * width + column, plane[i][j]))
                found.append(here)
    return found, rows, columns


def outputs(inputs: list[float], layer: Connections, biases: list[float]) -> list[float]:
    """Sums of weighted inputs, and a bias each."""
    return [
        sum(inputs[place] * weight for place, weight in here) + bias for here, bias in zip(layer, biases, strict=True)
    ]


def handed_down(
    inputs: list[float], layer: Connections, biases: list[float], relevance: list[float], rule: str, epsilon: float
) -> list[float]:
    """The inputs' relevance, from the outputs': R_i = sum over j of share_ij / (sum of j's shares) · R_j."""
    below = [0.0] * len(inputs)
    for here, bias, above in zip(layer, biases, relevance, strict=True):
        if rule == "epsilon":
            shares = [inputs[place] * weight for place, weight in here]
            total = sum(shares) + bias
            total += math.copysign(epsilon, total)
        elif rule == "plus":
            shares = [max(0.0, inputs[place] * weight) for place, weight in here]
            total = sum(shares) + max(0.0, bias)
        else:
            shares = [1.0] * len(here)
            total = float(len(here))
        for (place, _), share in zip(here, shares, strict=True):
            below[place] += share / total * above if total else 0.0
    return below


def rules(composite: str, convolutions: int, dense_layers: int) -> list[str]:
    """What each layer's rule is, from the image upwards."""
    if composite == "epsilon":
        return ["epsilon"] * (convolutions + dense_layers)
    first = "flat" if composite == "epsilon_plus_flat" else "plus"
    return [first] + ["plus"] * (convolutions - 1) + ["epsilon"] * dense_layers


def relevance(
    image: list, convolutions: list, dense_layers: list, target: int, composite: str, epsilon: float
) -> list[list[float]]:
    """Of each pixel, for the logit of the target, in a network of convolutions and dense layers with ReLUs between.

    Convolutions are (weight, bias of each output channel, padding), dense layers (weight, bias).
    """
    height, width = len(image[0]), len(image[0][0])
    layers = []
    rows, columns = height, width
    for weight, bias, padding in convolutions:
        layer, rows, columns = convolution(weight, rows, columns, padding)
        layers.append((layer, [each for each in bias for _ in range(rows * columns)]))
    layers += [(dense(weight), bias) for weight, bias in dense_layers]
    values = [[value for channel in image for row in channel for value in row]]
    for index, (layer, biases) in enumerate(layers):
        before = values[-1] if index == 0 else [max(0.0, value) for value in values[-1]]
        values[-1] = before
        values.append(outputs(before, layer, biases))
    found = [logit if place == target else 0.0 for place, logit in enumerate(values[-1])]
    chosen = rules(composite, len(convolutions), len(dense_layers))
    for (layer, biases), before, rule in reversed(list(zip(layers, values[:-1], chosen, strict=True))):
        found = handed_down(before, layer, biases, found, rule, epsilon)
    pixels = height * width
    return [
        [sum(found[channel * pixels + i * width + j] for channel in range(len(image))) for j in range(width)]
        for i in range(height)
    ]
