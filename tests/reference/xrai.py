"""XRAI's order of segments for one image, as plain loops.

H×W pixels; a segment is a mask of ones and zeros.
"""


def grown(attribution: list[list[float]], segments: list[list[list[int]]], least_new: int) -> list[list[float]]:
    """In each round the segment whose pixels not taken yet have the highest mean attribution gives them that mean.

    A segment with fewer than `least_new` of them is out; what no segment takes gets the mean of its own.
    """
    free = {(i, j) for i, row in enumerate(attribution) for j, _ in enumerate(row)}
    result = [[0.0] * len(row) for row in attribution]

    def mean(places):
        return sum(attribution[i][j] for i, j in places) / len(places)

    def take(places):
        value = sum(attribution[i][j] for i, j in places) / len(places)
        for i, j in places:
            result[i][j] = value
        free.difference_update(places)

    while True:
        left = [[(i, j) for i, j in sorted(free) if segment[i][j]] for segment in segments]
        candidates = [places for places in left if len(places) >= least_new]
        if not candidates:
            break
        take(max(candidates, key=mean))
    if free:
        take(sorted(free))
    return result
