"""Draw SSLSeg.png: a labelled organ in full, its outline carried into slices behind it, surer to less sure."""

import math
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
SIZE, FINER = 128, 8
SLICES = (  # offset of the slice, fill of the organ, its outline: from the labelled slice back to the least sure one
    ((40, -32), None, (242, 128, 26)),
    ((20, -16), None, (189, 54, 84)),
    ((0, 0), (221, 130, 101), (140, 62, 38)),
)


def organ(centre, radius):
    """An organ-like outline: a circle with two soft waves."""
    points = []
    for step in range(180):
        angle = 2 * math.pi * step / 180
        distance = radius * (1 + 0.20 * math.cos(angle - 0.5) + 0.10 * math.cos(2 * angle + 0.9))
        points.append((centre[0] + 1.18 * distance * math.cos(angle), centre[1] + 0.82 * distance * math.sin(angle)))
    return points


def draw(size=SIZE):
    """The icon as an image of the given size."""
    scale = size * FINER / SIZE
    picture = Image.new("RGBA", (size * FINER, size * FINER), (0, 0, 0, 0))
    for (right, up), fill, line in SLICES:
        layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
        brush = ImageDraw.Draw(layer)
        left, top = 6 + right, 40 + up
        box = [scale * each for each in (left, top, left + 76, top + 80)]
        alpha = 255 if fill else 235
        brush.rounded_rectangle(
            box, radius=9 * scale, fill=(38, 44, 54, alpha), outline=(150, 162, 178, 255), width=round(2 * scale)
        )
        points = [(scale * x, scale * y) for x, y in organ((left + 36, top + 42), 25)]
        if fill:
            brush.polygon(points, fill=(*fill, 255))
            brush.line([*points, points[0], points[1]], fill=(*line, 255), width=round(3 * scale), joint="curve")
        else:
            for start in range(0, len(points), 12):  # dashed: a pseudo-label
                brush.line(points[start : start + 8], fill=(*line, 255), width=round(4 * scale), joint="curve")
        picture = Image.alpha_composite(picture, layer)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    icons = ROOT / "SSLSeg" / "Resources" / "Icons"
    draw().save(ROOT / "SSLSeg.png", optimize=True)
    draw().save(icons / "SSLSeg.png", optimize=True)
    backdrop = Image.new("RGBA", (260, 280), (244, 246, 249, 255))
    backdrop.alpha_composite(draw(220), (20, 30))
    backdrop.convert("RGB").save(icons / "SSLSegPhantom.png", optimize=True)
