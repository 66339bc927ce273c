"""How long files and their `main` are, and how many of their lines other files of the list have too.

    python -m tests.repeated experiments/{planet,smaller_world_models,environment_models,i2a}/__main__.py

Lines of fewer than 12 characters, imports and comments are not compared; of a line that a file has twice one counts.
"""

import ast
import collections
import pathlib
import sys


def compared(text: str) -> set[str]:
    """The lines of a file that are compared."""
    lines = {line.strip() for line in text.splitlines()}
    return {line for line in lines if len(line) >= 12 and not line.startswith(("import ", "from ", "#", '"""'))}


def length_of_main(text: str) -> int:
    """Lines of the function `main` of a file; 0 where there is none."""
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    return sum(node.end_lineno - node.lineno + 1 for node in found)


if __name__ == "__main__":
    texts = {path: pathlib.Path(path).read_text() for path in sys.argv[1:]}
    files = collections.Counter(line for text in texts.values() for line in compared(text))
    for path, text in texts.items():
        print(f"{path}: {len(text.splitlines())} lines, main {length_of_main(text)}")
    print(f"in more than one file: {sum(number > 1 for number in files.values())} lines of {len(files)}")
