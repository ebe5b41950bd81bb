"""Write the packaged noun list from a WordNet 3.0 database folder.

python benchmarks/lexicon/build.py /usr/share/wordnet clipcal/text
"""

import lzma
import sys
from pathlib import Path


def main(wordnet: Path, out: Path) -> None:
    lines = (wordnet / "index.noun").read_text(encoding="utf-8").splitlines()
    nouns = sorted(line.split(" ", 1)[0] for line in lines if not line.startswith("  "))
    notice = [line.strip().split(" ", 1)[1:] for line in lines if line.startswith("  ")]
    packed = lzma.compress("\n".join(nouns).encode(), preset=9 | lzma.PRESET_EXTREME)
    (out / "wordnet_nouns.txt.xz").write_bytes(packed)
    text = "\n".join(part[0].rstrip() if part else "" for part in notice)
    (out / "WORDNET_LICENSE.txt").write_text(text.strip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
