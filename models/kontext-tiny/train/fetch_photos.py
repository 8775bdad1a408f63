"""Fetches the training photographs from Debian's wallpaper packages: scaled to 1024 on the short side, no duplicates.

Needs apt with a package list (apt-get update) and dpkg. The package lomiri-wallpapers-16.04 is left out: its pictures
are the test set. With --licences it also writes the packages' copyright files beside the photographs.
"""
import argparse
import glob
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from PIL import Image

Image.MAX_IMAGE_PIXELS = None
PACKAGES = [
    "plasma-workspace-wallpapers",
    "gnome-backgrounds",
    "mate-backgrounds",
    "ukui-wallpapers",
    "lomiri-wallpapers",
    "lomiri-wallpapers-20.04",
    "sway-backgrounds",
]
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="photos")
    parser.add_argument("--licences", action="store_true")
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    seen, count = set(), 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)
        for package in sorted(glob.glob(folder + "/*.deb")):
            subprocess.run(["dpkg", "-x", package, folder + "/raw"], check=True)
        for place, _, files in sorted(os.walk(folder + "/raw")):
            for file in sorted(files):
                if not file.lower().endswith(ENDINGS):
                    continue
                image = Image.open(os.path.join(place, file)).convert("RGB")
                if min(image.size) < 400:
                    continue
                scale = 1024 / min(image.size)
                if scale < 1:
                    size = (round(image.width * scale), round(image.height * scale))
                    image = image.resize(size, Image.LANCZOS)
                digest = hashlib.md5(image.resize((16, 16)).tobytes()).hexdigest()
                if digest in seen:
                    continue
                seen.add(digest)
                image.save(out / f"{count:03d}.jpg", quality=95)
                count += 1
        if args.licences:
            for file in glob.glob(folder + "/raw/usr/share/doc/*/copyright"):
                shutil.copy(file, out / f"{pathlib.Path(file).parent.name}.copyright")
    print(count, "photographs")


if __name__ == "__main__":
    main()
