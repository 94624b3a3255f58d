"""Writes the raw words of a stream to standard output without end, for a statistical test battery.

python bench/raw_words.py --seed 1 --name w | dieharder -g 200 -a
"""

import argparse
import itertools
import sys

import winit_fast as wf

CHUNK = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the stream")
    arguments = parser.parse_args()
    stream = wf.Stream(arguments.seed, arguments.name)
    try:
        for offset in itertools.count(0, CHUNK):
            sys.stdout.buffer.write(stream.bits(CHUNK, offset=offset))
    except BrokenPipeError:
        sys.stderr.close()  # the battery has closed the pipe


if __name__ == "__main__":
    main()
