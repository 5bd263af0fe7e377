"""The sites of a scenario, with their data found and their privacy filled in. Reads no record."""

from pathlib import Path

from pydantic import ValidationError

from client.data import medmnist, npz
from client.data.sources import Extension, Listed, MedMnist, Npz, Phantoms, Source
from client.site import Privacy, Site, paths_in
from medformer.common.yaml_file import explain
from medformer.errors import ConfigError
from server.run.checkpoints import write_json
from simulations.prepare.partition import divide, fingerprint
from simulations.scenario import Scenario, ScenarioSite, Split, describe


def resolve_sites(
    scenario: Scenario, folder: Path | None, data_root: Path | None
) -> list[tuple[ScenarioSite, Site]]:
    """Return every site that trains as the scenario lists it, and as its site.yaml declares it.

    Args:
        scenario: The scenario.
        folder: Run folder, where the rows of each site of a split are written; None divides
            nothing, so that a scenario can be planned without its data.
        data_root: Folder of MedMNIST files.
    Raises:
        MedFormerError: A file is missing, or a site's settings do not allow the run.
    """
    members, counts = _members(scenario, folder, data_root)
    return [(m, _resolved(m, scenario, data_root, counts.get(m.name))) for m in members]


def resolve_joining(scenario: Scenario, data_root: Path | None) -> list[tuple[ScenarioSite, Site]]:
    """Return the sites that fit a head at the end, with all their labels.

    Args:
        scenario: The scenario.
        data_root: Folder of MedMNIST files.
    Raises:
        MedFormerError: As `resolve_sites`; or a site has fewer images than its head needs.
    """
    pairs = []
    for member in (site for site in scenario.sites if site.head is not None):
        assert member.head is not None
        # Of a site that trains without labels, too: it labels some images after the run.
        whole = member.model_copy(update={"labelled": None})
        site = _resolved(whole, scenario, data_root, None)
        if site.privacy.n_public < member.head.labelled:
            raise ConfigError(
                f"site {member.name}: head.labelled {member.head.labelled} is more than the "
                f"{site.privacy.n_public} images that it has"
            )
        pairs.append((member, site))
    return pairs


def _resolved(
    member: ScenarioSite,
    scenario: Scenario,
    data_root: Path | None,
    numbers: tuple[int, int] | None,
) -> Site:
    """Return a site as its site.yaml declares it; `numbers` are (n_public, n_upper), if known."""
    domain, tasks = describe(member)
    data = _located(member.data, data_root)
    # Another seed of the scenario is another division, as of a split.
    if isinstance(data, MedMnist | Npz) and "seed" not in data.model_fields_set:
        data = data.model_copy(update={"seed": scenario.seed})
    if numbers is None:
        declared = member.privacy.over(scenario.privacy).get("n_public")
        numbers = (count := _declared(member.name, data, declared)), count
    privacy = privacy_of(member, scenario, *numbers)
    if member.labelled is not None:
        data = data.model_copy(update={"labelled": member.labelled})
    try:
        return Site(
            name=member.name,
            domain=domain,
            tasks=tasks,
            data=data,
            privacy=privacy,
            flip=member.flip,
        )
    except ValidationError as error:
        raise ConfigError(f"site {member.name}: {explain(error, Site)}") from error


def _members(
    scenario: Scenario, folder: Path | None, data_root: Path | None
) -> tuple[tuple[ScenarioSite, ...], dict[str, tuple[int, int]]]:
    """Return the listed sites, or those of a split with (n_public, n_upper) of each."""
    split = scenario.split
    if split is None:
        return scenario.members, {}
    whole = MedMnist(source="medmnist", dataset=split.dataset, size=split.size, root=data_root)
    members = [
        ScenarioSite(name=name, data=whole, flip=split.flip, labelled=split.labelled)
        for name in scenario.site_names
    ]
    if folder is not None:
        members = _divide(split, members, whole, folder, scenario.seed)
    # Delta is checked against what a site declares. The size of the whole set belongs to no site,
    # so each declares an equal share of it.
    share = -(-_declared(split.dataset, whole, None) // split.sites)
    return tuple(members), dict.fromkeys((m.name for m in members), (share, share))


def _divide(
    split: Split, members: list[ScenarioSite], whole: MedMnist, folder: Path, seed: int
) -> list[ScenarioSite]:
    """Write the rows of each site to a file, and let its source name that file."""
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
    """Return the labels of every image of a split, (N,), (N, 1) or (N, T); no image is read."""
    return npz.labels(path, split)


def _declared(name: str, data: Source, declared: int | None) -> int:
    """Return the number of units that a site declares: that of the scenario, or of a public file.

    Raises:
        ConfigError: The site's records are its own: their number is private and is not counted.
    """
    if isinstance(data, Listed | Extension):
        if declared:
            return declared
        raise ConfigError(
            f"site {name}: a site's own records are not counted, because their number is private: "
            "declare privacy.n_public, say the hundreds or thousands that the site admits to"
        )
    if isinstance(data, Phantoms):
        return data.records
    path = data.path if isinstance(data, Npz) else medmnist.find(data.dataset, data.size, data.root)
    count = npz.count(path, "train")
    if isinstance(data, MedMnist):
        count = len(range(data.part - 1, count, data.of))
    return max(1, count)


def _located(data: Source, data_root: Path | None) -> Source:
    """Return the source with absolute paths, because the sites' processes work in other folders."""
    places = paths_in(data)
    if isinstance(data, MedMnist) and data.root is None and data_root is not None:
        places["root"] = data_root
    return data.model_copy(update={name: path.resolve() for name, path in places.items()})


def privacy_of(site: ScenarioSite, scenario: Scenario, count: int, bound: int) -> Privacy:
    """Return a site's privacy settings.

    Args:
        site: The site.
        scenario: The scenario, whose settings are the defaults of its sites.
        count: Number of units, if the site declares none.
        bound: Upper bound of that number, if the site declares none.
    Raises:
        ConfigError: The budget does not cover one run.
    """
    declared = site.privacy.over(scenario.privacy)
    # An upper bound below the declared number would be refused, so a larger declaration wins.
    bound = max(bound, declared.get("n_public", 0))
    values = {"n_public": count, "n_upper": bound} | declared
    if site.labelled is not None and site.labelled < 1:
        values.setdefault("n_labelled", round(site.labelled * values["n_public"]))
    try:
        return Privacy.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"site {site.name}: privacy: {explain(error, Privacy)}") from error
