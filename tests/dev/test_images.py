"""Images are kept only as long as they are of use."""

from dev.images.build import OPERATOR, SERVER, older_builds


def listed(*builds: tuple[int, str | None]) -> list[dict[str, object]]:
    """What buildah lists of images made at these times."""
    return [{"created": created, "names": name and [f"localhost/{name}"]} for created, name in builds]


def test_the_three_newest_builds_of_an_image_stay_and_other_images_are_left_alone() -> None:
    images = listed(
        (4, "sluice-server:d"), (1, "sluice-server:a"), (5, "sluice-server:e"), (2, "sluice-server:b"),
        (3, "sluice-server:c"), (1, "sluice-operator:a"), (0, "sluice-base:bookworm-2"), (0, None),
    )  # fmt: skip
    assert older_builds(images, SERVER) == ["localhost/sluice-server:b", "localhost/sluice-server:a"]
    assert older_builds(images, OPERATOR) == []
