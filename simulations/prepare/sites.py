"""The sites of a scenario, with data found and privacy filled in; no record is read here."""

from pathlib import Path

from pydantic import ValidationError

from client.data import medmnist, npz
from client.data.sources import Listed, MedMnist, Npz, Phantoms, Source
from client.site import Privacy, Site, paths_in
from medformer.common.yaml_file import explain
from medformer.errors import ConfigError
from server.run.checkpoints import write_json
from simulations.prepare.partition import divide, fingerprint
from simulations.scenario import Scenario, ScenarioSite, Split, describe


def resolve_sites(
    scenario: Scenario, folder: Path | None, data_root: Path | None
) -> list[tuple[ScenarioSite, Site]]:
    """Every site with its data found, its domain, task and privacy filled in; reads no record.

    Args:
        folder: Where a split's partitions are written; None plans without dividing anything.
    """
    members, counts = _members(scenario, folder, data_root)
    pairs = []
    for member in members:
        domain, tasks = describe(member)
        data = _located(member.data, data_root)
        declared = member.privacy.over(scenario.privacy).get("n_public")
        count, bound = counts.get(member.name) or (_declared(member.name, data, declared),) * 2
        privacy = privacy_of(member, scenario, count, bound)
        try:
            site = Site(
                name=member.name,
                domain=domain,
                tasks=tasks,
                data=data,
                privacy=privacy,
                flip=member.flip,
            )
        except ValidationError as error:
            raise ConfigError(f"site {member.name}: {explain(error, Site)}") from error
        pairs.append((member, site))
    return pairs


def _members(
    scenario: Scenario, folder: Path | None, data_root: Path | None
) -> tuple[tuple[ScenarioSite, ...], dict[str, tuple[int, int]]]:
    """Sites as listed, or those of a split with (n_public, n_upper) of each."""
    split = scenario.split
    if split is None:
        return scenario.sites, {}
    whole = MedMnist(source="medmnist", dataset=split.dataset, size=split.size, root=data_root)
    members = [ScenarioSite(name=name, data=whole, flip=split.flip) for name in scenario.site_names]
    if folder is not None:
        members = _divide(split, members, whole, folder, scenario.seed)
    # What a hospital would declare, and what its delta is checked against: an equal share, for the
    # whole set is nobody's.
    share = -(-_declared(split.dataset, whole, None) // split.sites)
    return tuple(members), dict.fromkeys((m.name for m in members), (share, share))


def _divide(
    split: Split, members: list[ScenarioSite], whole: MedMnist, folder: Path, seed: int
) -> list[ScenarioSite]:
    """Write each site's rows, and give its source the file."""
    path = medmnist.find(split.dataset, split.size, whole.root)
    rows = divide({part: _labels(path, part) for part in ("train", "val")}, split, seed)
    divided, prints = [], {}
    for i, member in enumerate(members):
        mine = {part: rows[part][i] for part in rows}
        file = (folder / "partitions" / f"{member.name}.json").resolve()
        write_json(file, mine)
        prints[member.name] = {part: fingerprint(mine[part]) for part in mine}
        data = whole.model_copy(update={"indices": file})
        divided.append(member.model_copy(update={"data": data}))
    write_json(folder / "partitions.json", {"method": split.model_dump(), "sha256": prints})
    return divided


def _labels(path: Path, split: str) -> npz.Array:
    """(N,), (N, 1) or (N, T): of every image of a split; no image is read."""
    return npz.labels(path, split)


def _declared(name: str, data: Source, declared: int | None) -> int:
    """What a site declares if the scenario does not say: the size of its public file.

    Raises:
        ConfigError: Its records are nobody's public file, and are not counted here.
    """
    if isinstance(data, Listed):
        if declared:
            return declared
        raise ConfigError(
            f"site {name}: a folder's records are not counted, because their number is private: "
            "declare privacy.n_public, say the hundreds or thousands that the site admits to"
        )
    if isinstance(data, Phantoms):
        return data.records
    path = data.path if isinstance(data, Npz) else medmnist.find(data.dataset, data.size, data.root)
    return max(1, npz.count(path, "train"))


def _located(data: Source, data_root: Path | None) -> Source:
    """The source with absolute paths: the sites' processes work in folders of their own."""
    places = paths_in(data)
    if isinstance(data, MedMnist) and data.root is None and data_root is not None:
        places["root"] = data_root
    return data.model_copy(update={name: path.resolve() for name, path in places.items()})


def privacy_of(site: ScenarioSite, scenario: Scenario, count: int, bound: int) -> Privacy:
    """A site's privacy settings; `count` and `bound` stand in for what it does not declare.

    Raises:
        ConfigError: The budget does not cover one run.
    """
    declared = site.privacy.over(scenario.privacy)
    # Nobody declares fewer at most than there are: the stand-in gives way.
    bound = max(bound, declared.get("n_public", 0))
    values = {"n_public": count, "n_upper": bound} | declared
    try:
        return Privacy.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"site {site.name}: privacy: {explain(error, Privacy)}") from error
