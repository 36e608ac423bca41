"""The groups of a user's folder."""

import os


def groups_in(folder: str | None) -> dict[str, str]:
    """Return the groups of a folder: its inner folders, or itself; by default what is installed."""
    if folder is None:
        return dict.fromkeys(("code", "docs", "law"), "installed")
    inner = sorted(each.name for each in os.scandir(folder) if each.is_dir() and each.name[0] not in "._")
    if not inner:
        return {"text": folder}
    return {group_name(each): os.path.join(folder, each) for each in inner}


def group_name(folder: str) -> str:
    plain = "".join(each if (each.isalnum() and each.isascii()) or each in "-_" else "-" for each in folder)
    return plain.lstrip("-_") or "text"
