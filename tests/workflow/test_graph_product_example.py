"""examples/graph_product: a read store that another engine filled is taken over, and synced from then on.

The commands are those of its README; owner, worker and reader have the rights that are printed for them.
"""

import re
import shlex
from pathlib import Path
from typing import Any

from tests.workflow.test_shop_example import Site, as_role, batched, execute, site

__all__ = ["site"]

PRODUCT = Path(__file__).parents[2] / "examples" / "graph_product"


async def as_written(site: Site, block: str) -> None:
    """Follow a block of the README as somebody who reads what is said."""
    for line in block.splitlines():
        written, _, comment = line.partition("  #")
        status = re.search(r"exit status (\d)", comment)
        program, *arguments = shlex.split(written)
        if program == "psql":
            dsn = site.write if arguments.pop(0) == "$WRITE_DB" else site.graph
            scripts = [
                what if option == "-c" else (PRODUCT / what).read_text()
                for option, what in batched(arguments)
            ]
            await execute(as_role(dsn, site.owner), ";\n".join(scripts))
        elif arguments[0] == "grants":
            await site.grant(arguments[1])
        else:
            said = await site.command(*arguments)
            print("$", written, "->", said.status)
            print(said.out[-6000:], said.err[-3000:])
            assert said.status == (int(status[1]) if status else 0), (arguments, said.out, said.err)


async def test_a_graph_product_is_taken_over(site: Site, tmp_path: Path) -> None:
    for file in PRODUCT.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    blocks = re.findall(r"```sh\n(.*?)```", (PRODUCT / "README.md").read_text(), re.DOTALL)
    await as_written(site, blocks[0])
    await as_written(site, blocks[1])
