"""Images: pixels, encodings, records."""

import gc
import io
import subprocess
from pathlib import Path

import ldm_ort
import numpy
import PIL.Image
import pytest


def written_by(command: list[str], pipeline_file: Path, folder: Path, *arguments: str) -> list[Path]:
    run = [*command, "run", str(pipeline_file), "-o", str(folder), *arguments]
    lines = subprocess.run(run, check=True, capture_output=True, text=True).stdout.splitlines()
    return [Path(line) for line in lines]


def test_files_are_those_of_the_command(pipe, pipeline_file, command, wheel_command, tmp_path):
    images = pipe("a green star", seed=7, steps=4, images=2)
    arguments = ["-p", "a green star", "-s", "7", "--steps", "4", "--images", "2"]
    for at, program in enumerate([command, wheel_command]):
        files = written_by(program, pipeline_file, tmp_path / str(at), *arguments)
        assert [file.read_bytes() for file in files] == [image.encode("png") for image in images]
    jpeg = written_by(command, pipeline_file, tmp_path, *arguments, "--format", "jpeg", "--quality", "80")
    assert [file.read_bytes() for file in jpeg] == [image.encode("jpeg", quality=80) for image in images]


def test_what_an_image_says_of_itself(pipe, prompt):
    first, second = pipe(["a green star", prompt], seed=9)
    assert (first.width, first.height, first.seed, first.index, first.prompt) == (64, 64, 9, 0, "a green star")
    assert (second.index, second.seed, second.prompt) == (1, 10, prompt)
    record = second.record
    assert record["task"] == "text-to-image" and record["prompt"] == prompt and record["seed"] == 10
    assert repr(first) == "<ldm_ort.Image 64x64 seed=9>"


def test_arrays_are_the_images_own_memory(pipe):
    image = pipe()[0]
    array = numpy.asarray(image)
    assert (array.shape, array.dtype, array.flags.writeable) == ((64, 64, 3), numpy.uint8, False)
    again = numpy.asarray(image)
    assert array.__array_interface__["data"] == again.__array_interface__["data"]
    assert array.__array_interface__["data"][0] == image.__array_interface__["data"][0]
    assert numpy.shares_memory(array, again)
    before, pixels = array.copy(), image.tobytes()
    del image, again
    gc.collect()
    # The array keeps the image: as many new ones as would take its place change nothing.
    others = [numpy.full((64, 64, 3), at, numpy.uint8) for at in range(100)]
    assert (array == before).all() and array.tobytes() == pixels and len(others) == 100


def test_encodings(pipe):
    image = pipe(preview=1)[0]
    array = numpy.asarray(image)
    for format in ("png", "webp"):
        decoded = PIL.Image.open(io.BytesIO(image.encode(format)))
        assert decoded.format == format.upper()
        assert (numpy.asarray(decoded) == array).all()
    small, large = image.encode("jpeg", quality=10), image.encode("jpeg", quality=100)
    assert len(small) < len(large) and PIL.Image.open(io.BytesIO(small)).format == "JPEG"
    assert (numpy.asarray(PIL.Image.open(io.BytesIO(image._repr_png_()))) == array).all()
    assert image.to_pil().mode == "RGB" and image.to_pil().tobytes() == image.tobytes() == array.tobytes()
    for wrong in ({"format": "gif"}, {"format": "png", "quality": 9}, {"format": "jpeg", "quality": 0}):
        with pytest.raises(ValueError, match="expected|lossless"):
            image.encode(**wrong)


def test_saving(pipe, tmp_path):
    image = pipe()[0]
    image.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == image.encode("png")
    image.save(str(tmp_path / "a.webp"))
    assert (tmp_path / "a.webp").read_bytes() == image.encode("webp")
    with pytest.raises(FileNotFoundError, match="hint: "):
        image.save(tmp_path / "nowhere" / "a.png")
    with pytest.raises(ValueError, match="PNG, JPEG or WebP"):
        image.save(tmp_path / "a.gif")


def test_previews_have_pixels(pipe):
    events = []
    image = pipe(steps=4, preview=2, callback=events.append)[0]
    previews = [event for event in events if event["event"] == "preview"]
    assert [event["step"] for event in previews] == [2]
    preview = previews[0]["pixels"]
    assert isinstance(preview, ldm_ort.Preview)
    assert (preview.width, preview.height, preview.index, preview.step) == (64, 64, 0, 2)
    array = numpy.asarray(preview)
    assert array.shape == (64, 64, 3) and array.tobytes() == preview.tobytes() == preview.to_pil().tobytes()
    assert PIL.Image.open(io.BytesIO(preview.encode())).tobytes() == preview.tobytes() != image.tobytes()
    assert preview._repr_png_() == preview.encode("png")


def test_images_in_memory_are_as_files(pipe, tmp_path):
    original = pipe()[0]
    path, mask_path = tmp_path / "in.png", tmp_path / "mask.png"
    original.save(path)
    gray = numpy.zeros((64, 64), numpy.uint8)
    gray[:, 32:] = 255
    PIL.Image.fromarray(gray).save(mask_path)
    array, pil = numpy.asarray(original), PIL.Image.open(path)
    expected = pipe("a green star", image=path, strength=0.7)[0].tobytes()
    assert expected != original.tobytes()
    assert pipe("a green star", image=str(path), strength=0.7)[0].tobytes() == expected
    in_memory = [array, array.copy(), pil, pil.convert("RGBA"), path.read_bytes(), bytearray(path.read_bytes()), original]
    for image in in_memory:
        assert pipe("a green star", image=image, strength=0.7)[0].tobytes() == expected, type(image)
    # Not contiguous: mirrored twice.
    assert pipe("a green star", image=array[::-1].copy()[::-1], strength=0.7)[0].tobytes() == expected
    inpainted = pipe("a green star", image=path, mask=mask_path)[0]
    assert inpainted.record["task"] == "inpaint"
    for mask in (gray, numpy.repeat(gray[:, :, None], 3, 2), PIL.Image.open(mask_path), mask_path.read_bytes()):
        assert pipe("a green star", image=array, mask=mask)[0].tobytes() == inpainted.tobytes()
        assert pipe("a green star", image=array, mask_image=mask)[0].tobytes() == inpainted.tobytes()
    whole = {"task": {"image-to-image": {"image": array, "prompt": "a green star", "strength": 0.7}}}
    assert pipe(request=whole)[0].tobytes() == expected


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (numpy.zeros((64, 64, 3), numpy.float32), r"image: expected a uint8 array .*found float32 \[64, 64, 3\]\n  hint: "),
        (numpy.zeros((64, 64, 4), numpy.uint8), r"found uint8 \[64, 64, 4\]"),
        (numpy.zeros((1, 64, 64, 3), numpy.uint8), r"found uint8 \[1, 64, 64, 3\]"),
        (numpy.zeros((0, 64, 3), numpy.uint8), "image: expected 3"),
        (b"GIF89a", "image: "),
        (b"", "image: "),
    ],
)
def test_images_that_cannot_be_used(pipe, image, says):
    with pytest.raises(ValueError, match=says):
        pipe("a star", image=image)
