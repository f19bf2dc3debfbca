"""carvana-ens add-model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from carvana_ens.cli.common import FILE, SIZE, by_view_option, fold_rule_option, open_project, parse_settings
from carvana_ens.cli.completed import MEMBER, MODEL

if TYPE_CHECKING:
    from carvana_ens.types import Size


@click.command(short_help="Add a member.")
@click.argument("model", required=False, type=MODEL)
@click.option("--name", help="Name of the member.  [default: the model's]")
@click.option("--size", type=SIZE, metavar="HxW", help="Input size of the model.  [default: the model's]")
@click.option(
    "--tta",
    multiple=True,
    help="Test-time augmentation: hflip, vflip, transpose, or a scale as x0.75; may be given more than once.",
)
@click.option(
    "--tile", type=SIZE, metavar="HxW", help="Predict in tiles of this size, for photos too large for memory."
)
@click.option("--overlap", type=click.IntRange(0), help="Pixels that tiles share at least.  [default: an eighth]")
@click.option("--folds", type=click.IntRange(1), help="Folds of its own, in place of the default fold table.")
@click.option("--holdout", type=float, help="In place of --folds: share of the groups to hold out, for example 0.2.")
@fold_rule_option
@by_view_option
@click.option("--checkpoint", type=FILE, help="Predict with this file, without training.")
@click.option("--sha256", help="What --checkpoint must hash to.")
@click.option("--out-of-fold", is_flag=True, help="You say that --checkpoint has not seen the training photos.")
@click.option("--like", type=MEMBER, metavar="MEMBER", help="Use the checkpoints of MEMBER, at another --size.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the training.")
@click.option("--recipe", metavar="NAME", help="Option values of one of the model's recipes; models MODEL lists them.")
@click.option("--view", "views", multiple=True, help="Train on this view alone; may be given more than once.")
@click.option("--pseudo", metavar="NAME", help="Mix in these pseudo-labels; pseudo-label makes them.")
@click.option("--pseudo-share", type=float, help="Their share of each mini-batch.  [default: 0.3]")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Option of the model; see models NAME.")
@click.pass_context
def command(
    ctx: click.Context,
    model: str | None,
    name: str | None,
    size: Size | None,
    tta: tuple[str, ...],
    tile: Size | None,
    overlap: int | None,
    folds: int | None,
    holdout: float | None,
    fold_rule: Literal["rank", "histogram"],
    by_view: str | None,
    checkpoint: Path | None,
    sha256: str | None,
    out_of_fold: bool,
    like: str | None,
    seed: int,
    recipe: str | None,
    views: tuple[str, ...],
    pseudo: str | None,
    pseudo_share: float | None,
    settings: tuple[str, ...],
) -> None:
    """Add a member: a configured MODEL. Comments in ensemble.toml are kept.

    \b
    Example:
      carvana-ens add-model unet-256 --size 256x384 --tta hflip --set epochs=20
      carvana-ens add-model linknet34 --recipe s2-linknet34-fma --set epochs=20
      carvana-ens add-model timm-unet --name mobilenet --set encoder=mobilenetv2_100 --folds 5
      carvana-ens add-model unet-256 --name rear --view 09 --view 10 --pseudo confident --pseudo-share 0.2
      carvana-ens add-model unet-256 --name aerial --size 4096x4096 --tile 1024x1024 --tta hflip --tta x0.75
      carvana-ens add-model --like mobilenet --name mobilenet_large --size 640x960
    """
    from carvana_ens.project import FoldsConfig
    from carvana_ens.verbs.members import add_model

    asked = FoldsConfig(folds, holdout, rule=fold_rule, by_view=by_view)
    config = add_model(
        open_project(ctx),
        model,
        name=name,
        size=size,
        tta=tta,
        folds=None if asked == FoldsConfig() else asked,
        checkpoint=checkpoint,
        sha256=sha256,
        out_of_fold=out_of_fold,
        like=like,
        seed=seed,
        recipe=recipe,
        options=parse_settings(settings),
        wanted=views,
        pseudo=pseudo,
        pseudo_share=pseudo_share,
        tile=tile,
        overlap=overlap,
    )
    click.echo(f"added member {config.name} (model {config.model}, folds {config.folds})")
