"""A small plan of a comparison."""

from kinema.evaluation.compare import Contest, Contestant

ONE, TWO = Contestant("one", ("vgan", "--preset", "tiny"), 2, 4), Contestant("two", ("vgan-autoencoder",), 1, 8)


def contest(**changes: object) -> Contest:
    values: dict = {
        "data": "data/mine",
        "dataset": "abc",
        "contestants": (ONE, TWO),
        "minutes": 3.0,
        "clips_seen": None,
        "seeds": 2,
        "count": 32,
        "seed": 0,
        "features": "f",
        "replicates": 10,
        "finalists": 2,
        "device": "cpu",
    }
    return Contest(**(values | changes))
