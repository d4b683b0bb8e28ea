"""Boxes: where they are, and that cutting and pasting touches nothing else."""

import torch

from kinema.nn.regions import MARGIN, around_joints, boxes_around, crop, paste, places, shifted
from kinema.pose.skeleton import COCO_18, PENN_13

CHOICES = (("Nose",), ("REar", "LEar"), ("REar",), ("LEar",))


def test_the_first_group_that_is_visible_decides():
    pose = torch.zeros(4, 18, 3)
    nose, right, left = (COCO_18.index(name) for name in ("Nose", "REar", "LEar"))
    pose[0, [nose, right]] = torch.tensor([[1.0, 2.0, 1.0], [9.0, 9.0, 1.0]])
    pose[1, [right, left]] = torch.tensor([[2.0, 4.0, 0.5], [4.0, 8.0, 0.5]])
    pose[2, [right, left]] = torch.tensor([[2.0, 4.0, 0.0], [4.0, 8.0, 0.5]])  # a missing joint's place counts for nothing
    middle, visible = places(pose, COCO_18, CHOICES)
    assert middle[:3].tolist() == [[1, 2], [3, 6], [4, 8]]
    assert visible.tolist() == [True, True, True, False]
    assert not places(torch.ones(2, 13, 3), PENN_13, (("Nose",),))[1].any()


def test_the_box_around_the_joints_that_are_there():
    pose = torch.zeros(1, 2, 18, 3)
    pose[0, 0, :3] = torch.tensor([[10.0, 5.0, 1.0], [14.0, 25.0, 0.5], [0.0, 0.0, 0.0]])
    inside = around_joints(pose, 40, 32)
    assert inside.shape == (1, 2, 40, 32)
    assert not inside[0, 1].any(), "nobody is there"
    rows, columns = inside[0, 0].nonzero().unbind(1)
    reach = round(MARGIN * 20)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5 - reach, 25 + reach, 10 - reach, 14 + reach)
    assert inside[0, 0].sum() == (20 + 2 * reach + 1) * (4 + 2 * reach + 1)


def test_boxes_are_centred_and_pushed_inside():
    corners = boxes_around(torch.tensor([[10.5, 20.5], [0.0, 39.0], [59.0, 0.0]]), 4, height=40, width=60)
    assert corners.tolist() == [[19, 9], [36, 0], [0, 56]]


def test_cut_and_paste_with_gradients():
    images = torch.randn(2, 3, 10, 12, requires_grad=True)
    corners = torch.tensor([[1, 2], [6, 8]])
    assert torch.equal(crop(images, corners, 4)[1], images[1, :, 6:10, 8:12])
    patches = torch.randn(2, 3, 4, 4, requires_grad=True)
    pasted = paste(images, patches, corners, torch.tensor([True, True]))
    expected = images.detach().clone()
    expected[0, :, 1:5, 2:6], expected[1, :, 6:10, 8:12] = patches.detach()
    assert torch.equal(pasted, expected)
    assert torch.equal(paste(images, crop(images, corners, 4), corners, torch.tensor([True, True])), images)
    one = paste(images, patches, corners, torch.tensor([True, False]))
    assert torch.equal(one[1], images[1])
    one.sum().backward()
    assert torch.equal(patches.grad[0], torch.ones(3, 4, 4))
    assert patches.grad[1].abs().max() == 0
    assert images.grad[0, :, 1:5, 2:6].abs().max() == 0
    assert torch.equal(images.grad[1], torch.ones(3, 10, 12))


def test_shifted_images_repeat_their_border():
    images = torch.arange(24.0).reshape(2, 1, 3, 4)
    moved = shifted(images, torch.tensor([[1, -1], [-2, 0]]))
    assert moved[0, 0].tolist() == [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]
    assert moved[1, 0].tolist() == [[20, 21, 22, 23]] * 3
    one = shifted(images[:1], torch.tensor([[0, 0], [0, 9]]))  # the same for all, and further than it is wide
    assert torch.equal(one[0], images[0])
    assert one[1, 0].tolist() == [[0] * 4, [4] * 4, [8] * 4]


def test_the_gradient_of_a_shifted_image_lands_where_its_pixels_came_from():
    image = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: shifted(one, torch.tensor([[2, -1], [0, 3]])), image)
