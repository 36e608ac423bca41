"""What the shell completes: run directories, and the keys of a change."""

import os


def complete_directory(incomplete: str) -> list[str]:
    """Return the run directories that begin so: those below `runs/`, and below the folder that is typed."""
    folders = dict.fromkeys(
        [os.path.dirname(incomplete), *(["runs"] if not os.path.dirname(incomplete) else [])]
    )
    found = []
    for folder in folders:
        for entry in sorted(folder_entries(folder or "."), key=lambda entry: entry.name):
            place = os.path.join(folder, entry.name)
            # a folder that is no run may hold some
            runs = os.path.exists(os.path.join(place, "run.yaml"))
            found += [place if runs else f"{place}/"] if place.startswith(incomplete) and entry.is_dir() else []
    return found


def folder_entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(folder) if entry.name[0] != "."]
    except OSError:
        return []


def complete_change(incomplete: str) -> list[str]:
    """Return the keys that begin so, each with the sign that its value follows."""
    from shoal.search.front.keys import all_keys

    found = dict.fromkeys(key.path for key in all_keys() if key.last != "kind" and "NAME" not in key.path)
    return [f"{path}=" for path in found if path.startswith(incomplete)]
