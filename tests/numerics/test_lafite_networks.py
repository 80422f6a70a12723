"""Generator and discriminator give the official networks' numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.models.resampling import ResampleFilter
from clipgan.models.stylegan2 import (
    EqualizedConv,
    ModulatedConv,
    ToRgb,
    compute_minibatch_stddev,
)
from tests.numerics.lafite_reference import (
    DRAW_TOLERANCE,
    TAGS,
    arrays,
    assert_matches,
    build_discriminator,
    build_generator,
    draw,
    draw_images,
    facts,
    inputs,
    list_names,
    official_weights,
    unit,
)


@pytest.fixture(scope="module", params=TAGS)
def tag(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def generator(tag: str) -> LafiteGenerator:
    return build_generator(tag)


@pytest.fixture(scope="module")
def discriminator(tag: str) -> LafiteDiscriminator:
    return build_discriminator(tag)


def statistics(values: torch.Tensor) -> torch.Tensor:
    rows = values.flatten(1)
    return torch.stack([rows.mean(1), rows.std(1, unbiased=False), rows.norm(dim=1)], 1)


def test_rule_rebuilds_weights_and_inputs(tag: str) -> None:
    shapes = facts()["state_dict_shapes"][tag]
    rebuilt = {
        f"{tag}/{network}:{name}": tensor
        for network in "GD"
        for name, tensor in official_weights(shapes[network]).items()
    }
    rebuilt[f"{tag}/in.real"] = inputs(tag)["images"]
    rebuilt[f"{tag}/in.pl_noise"] = inputs(tag)["path_noise"]
    checks = {key: check for key, check in facts()["checks"].items() if key in rebuilt}
    assert len(checks) >= 15
    for key, check in checks.items():
        tensor = rebuilt[key].double()
        assert tensor.norm() == pytest.approx(check["norm"], rel=DRAW_TOLERANCE), key
        bound = DRAW_TOLERANCE * float(tensor.abs().max())
        assert tensor.flatten()[:3].tolist() == pytest.approx(check["first"], abs=bound), key
    assert_matches(draw("unit/x", (2, 2, 6, 6)), "unit.x", DRAW_TOLERANCE)
    assert_matches(draw("unit/mbstd", (8, 2, 3, 3)), "unit.mbstd_in", DRAW_TOLERANCE)


def test_key_mapping_is_complete(
    tag: str, generator: LafiteGenerator, discriminator: LafiteDiscriminator
) -> None:
    for network, module in (("G", generator), ("D", discriminator)):
        pairs = list_names(tag, network)
        names = facts()["state_dict_shapes"][tag][network]
        official = {name for name in names if not name.endswith("resample_filter")}
        assert {pair.official for pair in pairs} == official
        assert {pair.ours for pair in pairs} == set(module.state_dict())


def test_mapping_and_truncation(tag: str, generator: LafiteGenerator) -> None:
    styles = generator.mapping(inputs(tag)["latents"])
    assert styles.shape[1] == facts()["config"][tag]["num_ws"] == generator.num_layers
    assert_matches(styles[:, 0], f"{tag}.ws")
    assert_matches(styles[:, -1], f"{tag}.ws")
    generator.latent_average.zero_()
    generator.update_latent_average(styles)
    assert_matches(generator.latent_average, f"{tag}.w_avg_after_update")
    assert_matches(generator.truncate(styles, 0.7)[:, 0], f"{tag}.ws_trunc")
    partly = generator.truncate(styles, 0.7, num_slots=2)
    assert_matches(partly[:, [0, 1, 2, -1]], f"{tag}.ws_trunc_cutoff2")
    generator.latent_average.zero_()


@torch.no_grad()
def test_synthesis(tag: str, generator: LafiteGenerator) -> None:
    texts = inputs(tag)["text_features"]
    styles = generator.mapping(inputs(tag)["latents"])
    assert_matches(generator.synthesis(styles, texts, noise="const"), f"{tag}.img")
    plain = generator.synthesis(styles, texts, noise="none")
    assert_matches(plain[:, :, ::4, ::4], f"{tag}.img_nonoise")
    ramp = 1 + 0.1 * torch.arange(generator.num_layers)[:, None]
    layerwise = generator.synthesis(styles * ramp, texts, noise="const")
    assert_matches(layerwise[:, :, ::4, ::4], f"{tag}.img_ws_layerwise")


@torch.no_grad()
def test_every_block_of_the_generator(tag: str, generator: LafiteGenerator) -> None:
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for side, block in generator.blocks.items():
        for name in ("conv_up", "conv", "to_rgb"):
            layer = getattr(block, name)
            if layer is not None:
                handles.append(
                    layer.register_forward_hook(
                        lambda _, arguments, output, key=f"{side}.{name}": seen.update(
                            {key: output, f"{key}.style": arguments[1]}
                        )
                    )
                )
    generator(inputs(tag)["latents"], inputs(tag)["text_features"])
    for handle in handles:
        handle.remove()
    image = torch.zeros(())
    for side in generator.blocks:
        image = seen[f"{side}.to_rgb"] + (0 if side == "4" else generator.filter.upsample(image))
        assert_matches(statistics(seen[f"{side}.conv"]), f"{tag}.G.b{side}.x_stats")
        assert_matches(statistics(image), f"{tag}.G.b{side}.img_stats")
    assert_matches(seen["8.conv"][:, ::8], f"{tag}.G.b8.x_slice")
    assert_matches(seen["4.conv.style"], f"{tag}.styles.b4.conv1")
    assert_matches(seen["8.conv_up.style"], f"{tag}.styles.b8.conv0")
    last = generator.blocks[str(generator.resolution_px)].to_rgb
    gained = seen[f"{generator.resolution_px}.to_rgb.style"] * last.weight_gain
    assert_matches(gained, f"{tag}.styles.b{generator.resolution_px}.torgb")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["real", "fake"])
def test_discriminator(tag: str, discriminator: LafiteDiscriminator, kind: str) -> None:
    images = inputs(tag)["images"] if kind == "real" else arrays()[f"{tag}.img"]
    seen: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _, __, output, key=key: seen.update({key: output}))
        for key, module in [*discriminator.blocks.items(), ("trunk", discriminator.trunk)]
    ]
    output = discriminator(images)
    for handle in handles:
        handle.remove()
    name = f"{tag}.D.{kind}"
    assert_matches(output.realness[:, None], f"{name}.logits_unconditional")
    assert_matches(output.semantic_features, f"{name}.fts")
    logits = discriminator.compute_logits(output, inputs(tag)["text_features"])
    assert_matches(logits[:, None], f"{name}.logits_persample")
    assert_matches(seen["trunk"], f"{name}.fc")
    assert_matches(compute_minibatch_stddev(seen["8"], 4), f"{name}.mbstd")
    for side in discriminator.blocks:
        assert_matches(statistics(seen[side]), f"{name}.b{side}.x_stats")
    first = seen[str(discriminator.resolution_px)]
    assert_matches(first[:, ::8, ::4, ::4], f"{name}.b{discriminator.resolution_px}.x_slice")


@torch.no_grad()
def test_discriminator_groups_of_a_batch_of_eight(
    tag: str, discriminator: LafiteDiscriminator
) -> None:
    given, side = inputs(tag), discriminator.resolution_px
    dim = given["text_features"].shape[1]
    images = torch.cat([given["images"], draw_images(f"{tag}/real_b", 4, side, 8)])
    texts = torch.cat([given["text_features"], unit(draw(f"{tag}/txt_b", (4, dim)))])
    logits = discriminator.compute_logits(discriminator(images), texts)
    assert_matches(logits[:, None], f"{tag}.D.batch8.logits_persample")


class TestLayers:
    """One small case of each resampling and modulation."""

    images = arrays()["unit.x"]
    filter = ResampleFilter()

    def modulated(self, *, up: bool) -> torch.Tensor:
        layer = ModulatedConv(2, 3, 12 if up else 6, up=up)
        layer.weight.data.copy_(arrays()["unit.w3"])
        outputs, demodulation = layer.convolve(self.images, arrays()["unit.style"])
        return outputs * demodulation[:, :, None, None]

    def downsampled(self, weight: torch.Tensor) -> torch.Tensor:
        conv = EqualizedConv(2, 3, weight.shape[-1], down=True, activate=False)
        conv.weight.data.copy_(weight / conv.weight_gain)
        return conv(self.images)

    def test_filter_is_the_stored_one(self) -> None:
        assert torch.allclose(self.filter.kernel[0, 0], arrays()["unit.resample_filter"])

    def test_skip_image_resampling(self) -> None:
        assert_matches(self.filter.upsample(self.images), "unit.upsample2d")
        assert_matches(self.filter.downsample(self.images), "unit.downsample2d")

    def test_convolutions_with_resampling(self) -> None:
        layer = ModulatedConv(2, 3, 12, up=True)
        layer.weight.data.copy_(arrays()["unit.w3"])
        outputs, _ = layer.convolve(self.images, torch.ones(2, 2))
        assert_matches(outputs, "unit.conv_up2")
        assert_matches(self.downsampled(arrays()["unit.w3"]), "unit.conv_down2")
        assert_matches(self.downsampled(arrays()["unit.w1"]), "unit.skip_down2")

    def test_modulation(self) -> None:
        assert_matches(self.modulated(up=False), "unit.modconv")
        assert_matches(self.modulated(up=True), "unit.modconv_up2")
        layer = ToRgb(2)
        layer.weight.data.copy_(arrays()["unit.w1"])
        gained = arrays()["unit.style"] / layer.weight_gain
        assert_matches(layer(self.images, gained), "unit.modconv_nodemod")

    def test_minibatch_stddev(self) -> None:
        batch = arrays()["unit.mbstd_in"]
        assert_matches(compute_minibatch_stddev(batch, 4), "unit.mbstd")


def test_bf16_stays_close_to_fp32(tag: str) -> None:
    generator = build_generator(tag)
    generator.compute_dtype = torch.bfloat16
    with torch.no_grad():
        images = generator(inputs(tag)["latents"], inputs(tag)["text_features"])
    wanted = arrays()[f"{tag}.img"]
    assert images.dtype == torch.float32
    difference = F.mse_loss(images, wanted).sqrt() / wanted.std()
    assert 1e-5 < difference < 0.02
