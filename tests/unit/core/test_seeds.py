import pytest
import torch

from kinema.core.seeds import draw_rows, great_circle, normal_codes, numpy_generator, shard_of_batch


def test_a_code_depends_on_its_seed_alone():
    codes = normal_codes([3, 1, 4, 1], 5)
    assert torch.equal(codes[1], codes[3])
    assert torch.equal(codes[2], normal_codes([4], 5)[0])
    assert not torch.equal(codes[0], codes[1])
    assert normal_codes([], 5).shape == (0, 5)


def test_codes_are_standard_normal():
    codes = normal_codes(range(2000), 4)
    torch.testing.assert_close(codes.mean(0), torch.zeros(4), atol=0.1, rtol=0)
    torch.testing.assert_close(codes.T.cov(), torch.eye(4), atol=0.1, rtol=0)


def test_processes_draw_slices_of_what_one_process_draws():
    torch.manual_seed(0)
    whole = draw_rows(lambda rows: torch.randn(rows, 2), 6)
    parts = []
    for rank in range(3):
        torch.manual_seed(0)
        with shard_of_batch(rank, 3):
            parts.append(draw_rows(lambda rows: torch.randn(rows, 2), 2))
    assert torch.equal(torch.cat(parts), whole)


def test_the_shard_ends_with_its_context_even_after_an_error():
    with pytest.raises(ZeroDivisionError), shard_of_batch(1, 2):
        raise ZeroDivisionError
    assert draw_rows(lambda rows: torch.arange(rows), 3).tolist() == [0, 1, 2]


def test_great_circle_keeps_the_length_between_equal_lengths():
    ends = torch.nn.functional.normalize(normal_codes([0, 1], 50), dim=1)
    path = great_circle(ends, 5)
    torch.testing.assert_close(path[[0, -1]], ends)
    torch.testing.assert_close(path.norm(dim=1), torch.ones(5))


def test_great_circle_between_equal_codes_stays():
    code = normal_codes([7], 3)[0]
    torch.testing.assert_close(great_circle(torch.stack([code, code]), 3), code.expand(3, 3), atol=1e-3, rtol=1e-3)


def test_numpy_generators_of_different_paths_differ():
    draws = [numpy_generator(*path).random() for path in [(1,), (1, 0), (0, 1), (1, 0, 0), (1,)]]
    assert draws[0] == draws[4]
    assert len(set(draws)) == 4
