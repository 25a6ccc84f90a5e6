"""Run the parts, each in a process of its own: ``python -m benchmarks [a b ...]``."""

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import PARTS


def main(letters):
    """Run the parts of these letters, all if none; return the exit status."""
    letters = [letter.lower() for letter in letters] or list(PARTS)
    if unknown := [letter for letter in letters if letter not in PARTS]:
        print(f"There is no part {unknown[0]!r}; choose among {', '.join(PARTS)}.")
        return 2
    broken = []
    for letter in letters:
        name = PARTS[letter]
        print(f"\n== part {letter}: {name}", flush=True)
        if not Path(__file__).with_name(f"{name}.py").is_file():
            print("not written yet")
            continue
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}"]
        if subprocess.run(command).returncode:
            broken.append(letter)
    if broken:
        print(f"\nbroken: {', '.join(broken)}")
    return len(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
