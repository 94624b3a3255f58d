"""``python -m winit_fast``: the command, for launchers such as torchrun that take a module."""

from winit_fast.cli import main

if __name__ == "__main__":
    main(prog_name="winit-fast")
