"""``dynconv data``: the arguments of the data sets' ``prepare`` functions."""

from __future__ import annotations

import argparse
import errno

from ..errors import UserError

DOWNLOAD = "get the official archive first (into DIR/.download)"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the parser of ``data`` and of its own subcommands."""
    parser = subparsers.add_parser(
        "data",
        help="make or prepare data sets",
        description="Makes the built-in data, or re-organises official data by links: verified, resumable, "
        "and a second run does nothing. Archives are unpacked into DIR/.source, which the links need.",
    )
    kinds = parser.add_subparsers(title="data sets", metavar="DATASET", required=True)

    diatoms = _add(kinds, "diatoms", _diatoms, "the built-in data, in all three layouts")
    diatoms.add_argument("--classes", type=int, default=5, metavar="N", help="2 to 20 (default: %(default)s)")
    diatoms.add_argument("--train", type=int, default=40, metavar="N", help="training samples per class (%(default)s)")
    diatoms.add_argument("--test", type=int, default=10, metavar="N", help="test samples per class (%(default)s)")
    diatoms.add_argument("--size", type=int, default=64, metavar="PIXELS", help="edge of the images (%(default)s)")
    diatoms.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    diatoms.add_argument("--sheet", metavar="FILE", help="also draw an overview into this PNG")

    tiny = _add(kinds, "tiny-imagenet", _tiny_imagenet, "Tiny ImageNet for timm's ImageFolder")
    _source(tiny, "tiny-imagenet-200.zip, its folder, or a folder of .tar.gz shards")
    tiny.add_argument("--classes", type=int, metavar="N", help="only the first N classes, by wnid")

    voc = _add(kinds, "voc2012", _voc2012, "PASCAL VOC 2012 segmentation for mmseg")
    _source(voc, "VOCtrainval_11-May-2012.tar, or the VOCdevkit folder")
    voc.add_argument("--aug", metavar="SBD_DIR", help="add SBD's masks: SegmentationClassAug, aug.txt, trainaug.txt")

    ucr = _add(kinds, "ucr", _ucr, "UCR archive, .tsv or .ts, for tsai")
    _source(ucr, "a .zip, or a folder with <Name>_TRAIN and <Name>_TEST files", "get those in --names first")
    ucr.add_argument("--names", nargs="+", metavar="NAME", help="data sets (default: all; --download needs it)")


def _add(kinds, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=text, description=text)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to fill")
    parser.set_defaults(run=lambda args: _guarded(run, args))
    return parser


def _source(parser: argparse.ArgumentParser, text: str, download: str = DOWNLOAD) -> None:
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=text)
    parser.add_argument("--download", action="store_true", help=download)
    parser.add_argument("--strict", action="store_true", help="deviations from the official data are errors")
    parser.add_argument("--jobs", type=int, metavar="N", help="threads that decode (default: one a processor)")


def _guarded(run, args: argparse.Namespace) -> None:
    if getattr(args, "source", None) and args.download:
        raise UserError("give either SOURCE or --download, not both")
    if getattr(args, "jobs", None) is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: at least one is needed")
    try:
        run(args)
    except OSError as e:
        if e.filename is None or e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{e.filename}: {e.strerror}") from e


def _options(args: argparse.Namespace) -> dict:
    return {name: getattr(args, name) for name in ("download", "strict", "jobs")} | {"log": print}


def _diatoms(args: argparse.Namespace) -> None:
    from . import diatoms

    options = {name: getattr(args, name) for name in ("classes", "train", "test", "size", "seed")}
    diatoms.make(args.out, **options, log=print)
    if args.sheet:
        from . import sheet

        sheet.save(args.sheet, **options)
        print(f"overview: {args.sheet}")


def _tiny_imagenet(args: argparse.Namespace) -> None:
    from . import tiny_imagenet

    tiny_imagenet.prepare(args.source, args.out, classes=args.classes, **_options(args))


def _voc2012(args: argparse.Namespace) -> None:
    from . import voc2012

    voc2012.prepare(args.source, args.out, aug=args.aug, **_options(args))


def _ucr(args: argparse.Namespace) -> None:
    from . import ucr

    options = _options(args)
    del options["jobs"]
    ucr.prepare(args.source, args.out, names=args.names, **options)
