"""Videos to test with: a disc that moves over a slope, as a file or as numbered images."""

import io

import av
import numpy as np
from PIL import Image

__all__ = ["frames_of", "numbered_images", "video_bytes"]


def frames_of(number, *, num=24, height=32, width=40):
    """uint8 [num, height, width, 3]; red is 8 times the frame's number, so that a frame tells which one it is."""
    rng = np.random.default_rng(number)
    (row, col), (down, right) = rng.uniform(6, 20, 2), rng.uniform(-2, 2, 2)
    rows, cols = np.mgrid[:height, :width]
    frames = np.zeros((num, height, width, 3), np.uint8)
    for index in range(num):
        frames[index, :, :, 0] = index * 8
        frames[index, :, :, 1] = cols * 3
        inside = (rows - (row + down * index) % height) ** 2 + (cols - (col + right * index) % width) ** 2 < 30
        frames[index, :, :, 2] = np.where(inside, 220, 30)
    return frames


def video_bytes(number, *, kind="mp4", codec="mpeg4", **shape):
    frames, stream = frames_of(number, **shape), io.BytesIO()
    with av.open(stream, "w", format={"mp4": "mp4", "avi": "avi", "mkv": "matroska"}[kind]) as container:
        video = container.add_stream(codec, rate=12)
        video.height, video.width, video.pix_fmt, video.bit_rate = *frames.shape[1:3], "yuv420p", 2_000_000
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
    return stream.getvalue()


def numbered_images(number, *, first=0, **shape):
    """{"000.png": ...}: the files of a sample whose video is a series of images."""
    files = {}
    for index, frame in enumerate(frames_of(number, **shape)):
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "PNG")
        files[f"{first + index:03d}.png"] = stream.getvalue()
    return files
