"""Formats of pictures by their first bytes; all else is for PyAV to tell."""

from typing import Literal

from avllm.errors import MediaError

HEAD_BYTES = 256
_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_REFUSED = (
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0\0\0\0\0", "TGA"),
    (b"\0\0\x0a\0\0\0\0\0", "TGA"),
    (b"8BPS", "Photoshop"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"%PDF-", "PDF"),
    (b"<svg", "SVG"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"icns", "ICNS"),
    (b"gimp xcf", "XCF"),
    (b"\x0a\x05\x01\x08", "PCX"),
    (b"\xb1\x68\xde\x3a", "DCX"),
    (b"\x01\xda", "SGI"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"SIMPLE  =", "FITS"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%!PS", "EPS"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"BLP1", "BLP"),
    (b"BLP2", "BLP"),
    (b"FTEX", "FTEX"),
    (b"DanM", "MSP"),
    (b"LinS", "MSP"),
    (b"II\xbc", "JPEG XR"),
    (b"FLIF", "FLIF"),
    (b"BPG\xfb", "BPG"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"AT&TFORM", "DjVu"),
    (b"farbfeld", "farbfeld"),
    (b"#define", "XBM"),
    (b"/* XPM */", "XPM"),
    (b"Image type:", "IM"),
    *((b"P%d" % number + space, "PNM") for number in range(1, 8) for space in (b"\n", b" ", b"\r", b"\t")),
)
# Brands of ISO base media files whose pictures are items, not tracks. A sequence of HEVC is a track, for PyAV.
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"miaf"})
_AVIF = frozenset({b"avif", b"avis"})


def sniff(head: bytes, name: str) -> tuple[Literal["container", "picture"], str]:
    """Kind of a file and, of a picture, its format: the name that Pillow has for it, or HEIF.

    Args:
        head: its first `HEAD_BYTES` bytes.
        name: for messages.

    Raises:
        MediaError: a picture of a format that is not read.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "picture", "WEBP"
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = {head[at : at + 4] for at in range(16, min(size, len(head)), 4)}
        major = head[8:12]
        if major in _AVIF or (major in _HEIF and brands & _AVIF):
            return "picture", "AVIF"
        return ("picture", "HEIF") if major in _HEIF else ("container", "")
    for start, format in _PICTURES:
        if head.startswith(start):
            return "picture", format
    for start, format in _REFUSED:
        if head.startswith(start):
            raise MediaError(
                f"{name}: a file of the format {format}, which is not read; save the picture as PNG or JPEG"
            )
    return "container", ""
