"""Blur, memorisation, diversity, path length, objects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.caption_diversity import compute_caption_diversity
from clipgan.evaluation.metrics.inputs import ImageInputs
from clipgan.evaluation.metrics.memorised_share import find_nearest_training
from clipgan.evaluation.metrics.metric import Skip
from clipgan.evaluation.metrics.object_accuracy import (
    DETECTOR_URL,
    ObjectDetector,
    build_detector,
    coco_classes,
    compute_object_accuracy,
    match_classes,
)
from clipgan.evaluation.metrics.path_length import compute_perceptual_path_lengths
from clipgan.evaluation.spaces.blur import blur
from clipgan.evaluation.spaces.inception import WeightsFile, find_hub_weights
from clipgan.metrics.grouping import Grouping
from tests.metric_values import SPACE, compute_values

GENERATOR = torch.Generator().manual_seed(0)
CPU = torch.device("cpu")


class TestBlur:
    def test_a_point_becomes_a_gaussian(self) -> None:
        image = torch.zeros(1, 3, 41, 41, dtype=torch.uint8)
        image[..., 20, 20] = 255
        row = blur(image, 1)[0, 0, 20].double()
        expected = 255 * torch.exp(-torch.arange(-20, 21).double().square() / 2) / (2 * torch.pi)
        assert float((row - expected).abs().max()) < 0.6

    @pytest.mark.parametrize("radius", [1, 8])
    def test_flat_images_stay_and_edges_do_not_darken(self, radius: int) -> None:
        image = torch.full((2, 3, 16, 12), 200, dtype=torch.uint8)
        assert torch.equal(blur(image, radius), image)


class TestMemorisation:
    def test_copies_are_found_and_new_images_are_not(self) -> None:
        training = torch.randn(50, 8, generator=GENERATOR)
        copies = training[[7, 3]] + 1e-3
        new = torch.randn(5, 8, generator=GENERATOR) * 4 + 10
        found = find_nearest_training(torch.cat([copies, new]), training)
        assert found.rows[:2].tolist() == [7, 3]
        assert found.memorised.tolist() == [1, 1, 0, 0, 0, 0, 0]
        assert set(found.closest(2).tolist()) == {0, 1}

    def test_real_images_count_as_memorised_half_the_time(self) -> None:
        """Images of the same distribution are as near to training as training is to itself."""
        training, held_out = (torch.randn(400, 4, generator=GENERATOR) for _ in range(2))
        share = float(find_nearest_training(held_out, training).memorised.mean())
        assert 0.4 < share < 0.6

    def test_a_training_image_has_distance_zero(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("clipgan.evaluation.metrics.memorised_share._BLOCK", 3)
        training = 100 * torch.randn(10, 300, generator=GENERATOR)
        found = find_nearest_training(training, training)
        assert found.rows.tolist() == list(range(10))
        assert found.distances.tolist() == [0.0] * 10


class TestDiversity:
    def test_is_the_mean_cosine_distance_of_all_pairs(self) -> None:
        features = torch.randn(6, 5, generator=GENERATOR)
        found = compute_caption_diversity(features, 3)
        for caption, part in enumerate(torch.split(features.double(), 3)):
            cosines = torch.nn.functional.cosine_similarity(part[:, None], part[None], dim=2)
            expected = (1 - cosines)[~torch.eye(3, dtype=torch.bool)].mean()
            assert float(found[caption]) == pytest.approx(float(expected))

    def test_equal_images_have_none(self) -> None:
        assert compute_caption_diversity(torch.ones(4, 5), 4).tolist() == pytest.approx([0.0])
        with pytest.raises(EvaluationError, match="samples_per_concept = 1"):
            compute_caption_diversity(torch.ones(4, 5), 1)


class TestPathLength:
    def test_of_a_linear_generator_is_the_closed_form(self) -> None:
        """Features (cos t, sin t) at angle t = w.z: the squared step is (w . dz)^2."""
        weights = torch.randn(6, generator=GENERATOR)

        def generate(latents: Tensor, texts: Tensor) -> Tensor:
            angle = latents.double() @ weights.double() + texts[:, 0].double()
            return torch.stack([angle.cos(), angle.sin()], dim=1)

        found = compute_perceptual_path_lengths(
            generate,
            torch.arange(400.0)[:, None],
            latent_dim=6,
            encode=lambda images: images,
            epsilon=1e-4,
            seed=0,
            batch_size=64,
        )
        # dz = z1 - z0 of two standard normals: E (w . dz)^2 = 2 |w|^2.
        assert found.shape == (400,)
        expected = 2 * float(weights.square().sum())
        assert float(found.mean()) == pytest.approx(expected, rel=0.25)
        assert float((found / expected).median()) == pytest.approx(0.455, rel=0.25)  # chi^2(1)


class TestObjects:
    def test_captions_name_things_in_any_number(self) -> None:
        things = coco_classes()
        assert len(things) == 80
        named = match_classes(
            ["Two dogs and a bus", "women with umbrellas", "a hot dog", "a doghouse", "nothing"]
        )
        found = [{name for name, n in things.items() if row[n]} for row in named]
        assert found[0] == {"dog", "bus"}
        assert found[1] == {"person", "umbrella"}
        assert {"hot dog"} <= found[2]
        assert found[3] == found[4] == set()

    def test_accuracy_by_class_weighs_things_equally(self) -> None:
        named, present = (torch.zeros(8, 91, dtype=torch.bool) for _ in range(2))
        named[:6, 1], named[6:, 2] = True, True
        present[:3, 1], present[6:, 2], present[:, 3] = True, True, True
        found = compute_object_accuracy(named, present, Grouping(8, 4, 0))
        assert found["_c"].value == pytest.approx((3 / 6 + 1) / 2)
        assert found["_i"].value == pytest.approx(5 / 8)
        assert len(found["_i"].leave_out) == 4

    def test_absent_detector_and_captions_without_things_are_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        reason = find_hub_weights(DETECTOR_URL)
        assert isinstance(reason, str)
        assert "fasterrcnn_resnet50_fpn_v2_coco" in reason
        assert build_detector(["a dog"], CPU) == Skip(reason)
        monkeypatch.setattr(
            "clipgan.evaluation.metrics.object_accuracy.find_hub_weights",
            lambda _: WeightsFile(tmp_path, "0"),
        )
        assert "no caption names" in str(build_detector(["a rocket"], CPU))

    def test_what_is_detected_counts(self) -> None:
        present = torch.zeros(8, 91)
        present[:, coco_classes()["dog"]] = 1.0
        found = compute_values(
            ImageInputs(
                space=SPACE,
                grouping=Grouping(8, 4, 0),
                features=present,
                captions=["a dog"] * 6 + ["a cat"] * 2,
            )
        )
        assert found["soa_i_x"].value == pytest.approx(6 / 8)
        assert found["soa_c_x"].value == pytest.approx(1 / 2)
        assert found["soa_c_x"].protocol.settings == {"captions_with_things": 8}

    @pytest.mark.slow
    def test_the_detector_loads_torchvisions_file_format(self, tmp_path: Path) -> None:
        from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

        torch.manual_seed(0)
        network = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
        torch.save(network.state_dict(), tmp_path / "w.pth")
        detector = ObjectDetector(WeightsFile(tmp_path / "w.pth", "0"))
        images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        assert detector.find_things(images).shape == (2, 91)
