"""From the files of a sample to some frames of its video: a video file by PyAV, or a numbered series of images.

A video is decoded from its beginning to the last frame that is wanted, and only the wanted ones become RGB. How many
frames there are is counted in the container first, without decoding; where decoding gives another number (containers
may hold packets without a picture), the frames are chosen again among those that came.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8
from unveil_backbones.errors import TooManyPixelsError
from unveil_backbones.limits import check_pixels, max_image_pixels

from unveil_pretrain.data.decode import decode
from unveil_pretrain.data.images import IMAGE_EXTENSIONS
from unveil_pretrain.errors import DataError, MissingExtraError

__all__ = ["VIDEO_EXTENSIONS", "clip_files", "read_frames"]

VIDEO_EXTENSIONS: Final = ("mp4", "webm", "avi", "mkv", "mov", "m4v", "mpg", "mpeg")

_NUMBERED: Final = re.compile(r"(?:.*\.)?(\d+)\.(?:" + "|".join(IMAGE_EXTENSIONS) + ")")


def clip_files(extensions: Sequence[str]) -> tuple[str, ...]:
    """Those files of a sample that are its video, by extension: one video file, or numbered images in their order.

    Numbered are extensions such as `000.jpg`, that is files named `<key>.000.jpg`. Empty where a sample holds neither,
    or both, or several videos, or a number twice.
    """
    videos = [extension for extension in extensions if extension.rpartition(".")[2] in VIDEO_EXTENSIONS]
    numbered = {extension: int(match[1]) for extension in extensions if (match := _NUMBERED.fullmatch(extension))}
    if len(videos) == 1 and not numbered:
        return (videos[0],)
    if videos or len(set(numbered.values())) != len(numbered):
        return ()
    return tuple(sorted(numbered, key=lambda extension: numbered[extension]))


def read_frames(
    files: Mapping[str, bytes], names: Sequence[str], where: str, choose: Callable[[int], list[int]]
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The chosen frames, RGB, all of one size.

    Args:
        files: The files of a sample, by extension.
        names: What `clip_files` says.
        where: Place and key, for messages.
        choose: From the number of frames to the wanted ones, in ascending order; equal ones may follow each other.

    Raises:
        DataError: the video has no frame, cannot be decoded, or its frames differ in size.
        MissingExtraError: PyAV is not installed.
    """
    if len(names) == 1 and names[0].rpartition(".")[2] in VIDEO_EXTENSIONS:
        frames = _read_video(files[names[0]], where, choose)
    else:
        wanted = choose(len(names))
        images = {index: decode(files[names[index]], f"{where}.{names[index]}") for index in set(wanted)}
        frames = [images[index] for index in wanted]
    sizes = {frame.shape for frame in frames}
    if len(sizes) != 1:
        raise DataError(f"{where}: frames of sizes {sorted(sizes)}; a clip has one size; write it again or remove it")
    return frames


def _read_video(data: bytes, where: str, choose: Callable[[int], list[int]]) -> list[np.ndarray]:
    av = _load_av()
    try:
        counted = _count_packets(av, data)
        wanted = choose(max(1, counted))
        found, num = _decode(av, data, set(wanted))
        if not num:
            raise DataError(f"{where}: the video has no frame; replace it or remove the sample")
        if len(found) < len(set(wanted)):  # it ended early, at the true number of frames
            wanted = choose(num)
            found, _ = _decode(av, data, set(wanted))
        return [found[index] for index in wanted]
    except DataError:
        raise
    except TooManyPixelsError as error:
        raise DataError(f"{where}: a frame has {error}; or remove the sample") from error
    except (av.error.FFmpegError, ValueError, IndexError, AttributeError, MemoryError) as error:
        raise DataError(
            f"{where}: the video cannot be decoded ({type(error).__name__}: {error}); replace it or remove the sample"
        ) from error


def _load_av() -> Any:
    try:
        import av
        import av.logging
    except ImportError as error:
        raise MissingExtraError(
            "clips from video files need PyAV, which is not installed; install it with "
            "`pip install 'unveil-pretrain[video]'`, or store clips as numbered images"
        ) from error
    # What it says of broken files is in the error; the rest is for people who encode videos.
    av.logging.set_level(av.logging.PANIC)
    return av


def _count_packets(av: Any, data: bytes) -> int:
    """Packets of the first video stream that hold something; nothing is decoded."""
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)


def _decode(av: Any, data: bytes, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
    """The wanted frames by their number, and how many frames were decoded: all of them unless the wanted came first."""
    found: dict[int, np.ndarray] = {}
    last, num = max(wanted), 0
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # the loader's workers are the threads
        check_pixels(stream.codec_context.width, stream.codec_context.height)
        # Sizes may change within a stream; FFmpeg, which counts the margins of its buffers too, then refuses.
        stream.codec_context.options = {"max_pixels": str(2 * max_image_pixels() + 2**20)}
        for frame in container.decode(stream):
            if num in wanted:
                found[num] = frame.to_ndarray(format="rgb24")
            num += 1
            if num > last:
                break
    return found, num
