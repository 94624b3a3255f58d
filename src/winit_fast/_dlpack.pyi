CPU: int
VERSION: tuple[int, int]

def describe(capsule: object) -> tuple[int, tuple[int, ...], tuple[int, ...], str, bool | None]: ...
