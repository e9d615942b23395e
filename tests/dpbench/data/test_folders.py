"""Folders of the user's: which files are read, and as what label."""

import os
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dpbench.data import draw_batch, folder, image_files, load_data
from dpbench.protocol import InputError


def test_folder_by_class_is_numbered_like_image_folder(tmp_path, picture):
    a = picture(tmp_path / "cat" / "1.png", seed=1)
    b = picture(tmp_path / "ant" / "deep" / "2.png", seed=2)
    found = load_data(f"folder:{tmp_path}")
    assert found.class_names == ("ant", "cat")
    assert found.labels.tolist() == [0, 1]
    assert np.array_equal(found.images[0].permute(1, 2, 0), b)
    assert np.array_equal(found.images[1].permute(1, 2, 0), a)
    assert found.num_classes == 2
    assert found.mean_image.flatten(1).unique(dim=1).shape == (3, 1)
    assert found.note == ""


@pytest.mark.parametrize(
    "hidden",
    [
        *("a/.ipynb_checkpoints/x-checkpoint.png", "a/._x.png", "a/deep/.y/z.png", ".c/x.png"),
        *("__MACOSX/a/x.png", "a/Thumbs.db", "a/desktop.ini", "a/.DS_Store"),
    ],
)
def test_hidden_files_and_folders_are_not_looked_at(tmp_path, picture, hidden):
    picture(tmp_path / "a" / "x.png", seed=1)
    picture(tmp_path / "b" / "y.png", seed=2)
    (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / hidden).write_text("not an image")
    found = load_data(f"folder:{tmp_path}")
    assert len(found.labels) == 2
    assert found.class_names == ("a", "b")


def test_folder_by_listing(tmp_path, picture):
    a = picture(tmp_path / "images" / "x.png", seed=3)
    (tmp_path / "labels.csv").write_text("file,label,name\nimages/x.png,2,dog\n")
    found = load_data(f"folder:{tmp_path}")
    assert found.labels.tolist() == [2]
    assert found.num_classes == 3
    assert found.class_names == ("0", "1", "dog")
    assert np.array_equal(found.images[0].permute(1, 2, 0), a)


@pytest.mark.parametrize(
    "header", ["File,LABEL,Name", " file , label,name ", "\ufefffile,label,name", '"File","Label","Name"']
)
def test_headers_in_any_case_with_spaces_or_a_byte_order_mark(tmp_path, picture, header):
    picture(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text(f"{header}\nx.png, 1 , dog \n", encoding="utf-8")
    found = load_data(f"folder:{tmp_path}")
    assert found.labels.tolist() == [1]
    assert found.class_names == ("0", "dog")


def test_labels_may_be_names(tmp_path, picture):
    for name in "xyz":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("label,file\nzebra,x.png\nant 2,y.png\nzebra,z.png\n")
    found = load_data(f"folder:{tmp_path}")
    assert found.labels.tolist() == [1, 0, 1]
    assert found.class_names == ("ant 2", "zebra")


def test_labels_are_numbers_or_names_throughout(tmp_path, picture, refused):
    picture(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text("file,label\nx.png,3\ny.png,dog\n")
    refused(r"labels.csv has numbers \(3\) and names \(dog\) as labels: use one kind")


@pytest.mark.parametrize("again", ["x.png,0", "x.png,1", "./x.png,1"])
def test_a_file_that_is_listed_twice_is_refused(tmp_path, picture, refused, again):
    picture(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text(f"file,label\nx.png,0\n{again}\n")
    refused(rf"labels.csv, line 3, names {again[:-2]} again, which line 2 has: leave one of them\.")


@pytest.mark.parametrize("label", ["-1", "1.5", "nan", "1e3", "", "²", "1" * 30])
def test_labels_must_be_whole_numbers_or_names(tmp_path, picture, refused, label):
    picture(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text(f"file,label\nx.png,{label}\n", encoding="utf-8")
    refused(r"labels.csv, line 2: label .* is not an integer from 0 to 999999")


@pytest.mark.parametrize("text", ["file,label\n,1\n", "file,label\nx.png\n"])
def test_listings_need_their_columns(tmp_path, picture, refused, text):
    picture(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text(text)
    refused("columns file,label")


@pytest.mark.parametrize("header", ["image,class", "file;label", "filename,label", "x.png,1", ""])
def test_a_wrong_header_is_named(tmp_path, picture, refused, header):
    picture(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text(f"{header}\nx.png,1\n" if header else "")
    refused(f"labels.csv begins with '{re.escape(header)}': its first line must be file,label")


def test_listings_that_are_empty(tmp_path, refused):
    (tmp_path / "labels.csv").write_text("file,label\n")
    refused("labels.csv lists no images")


def test_listings_that_name_a_missing_file(tmp_path, refused):
    (tmp_path / "labels.csv").write_text("file,label\nghost.png,1\n")
    refused("no file .*ghost.png")


def test_listings_that_are_no_text(tmp_path, refused):
    (tmp_path / "labels.csv").write_bytes(os.urandom(50) + b"\xff\xfe\x00")
    refused("labels.csv")


@pytest.mark.parametrize("name", ["../out.png", "{out}", "link.png", "away/out.png", "sub/../../out.png"])
def test_listings_stay_below_their_folder(tmp_path, picture, refused, name):
    home, out = tmp_path / "home", tmp_path / "elsewhere"
    picture(home / "in.png")
    picture(out / "out.png")
    picture(tmp_path / "out.png")
    (home / "link.png").symlink_to(out / "out.png")
    (home / "away").symlink_to(out)
    (home / "sub").mkdir()
    (home / "labels.csv").write_text(f"file,label\nin.png,1\n{name.format(out=out / 'out.png')},0\n")
    refused("labels.csv, line 3: .* lies outside the folder of the listing", folder=home)


def test_listings_may_name_files_in_full_and_through_links_inside(tmp_path, picture):
    picture(tmp_path / "deep" / "x.png")
    picture(tmp_path / "deep" / "y.png")
    (tmp_path / "link").symlink_to(tmp_path / "deep")
    (tmp_path / "labels.csv").write_text(f"file,label\n{tmp_path / 'deep' / 'x.png'},0\nlink/y.png,1\n")
    assert len(load_data(f"folder:{tmp_path}").labels) == 2


def test_a_single_class_is_refused(tmp_path, picture, refused):
    picture(tmp_path / "only" / "x.png")
    refused("has a single class.*: give images of two classes or more")


def test_missing_and_empty_folders(tmp_path, picture, refused):
    refused("There is no folder", folder=tmp_path / "nowhere")
    refused("There is no folder", folder=tmp_path / ("x" * 300))
    refused("There is no folder|cannot be the name", folder="a\0b")
    refused("has no images")
    picture(tmp_path / "a" / "x.png")
    (tmp_path / "b").mkdir()
    refused("class folder .*b is empty")


def test_home_is_spelt_out(tmp_path, picture, monkeypatch, refused):
    monkeypatch.setenv("HOME", str(tmp_path))
    picture(tmp_path / "mine" / "a" / "x.png")
    picture(tmp_path / "mine" / "b" / "x.png")
    assert len(load_data("folder:~/mine").labels) == 2
    refused("home folder in .* is not known", folder="~nosuchuser/x")


def test_images_of_two_sizes_need_a_size(tmp_path, picture, refused):
    picture(tmp_path / "a" / "x.png", (32, 32))
    picture(tmp_path / "b" / "y.png", (48, 32))
    refused(r"y.png is 48 x 32 pixels where .*x.png is 32 x 32.*--image-size")
    assert load_data(f"folder:{tmp_path}", size=32).images.shape == (2, 3, 32, 32)


def test_images_must_be_square_unless_a_size_is_given(tmp_path, picture, refused):
    picture(tmp_path / "a" / "x.png", (48, 32))
    refused("not square: choose --image-size")


def test_large_folders_are_read_when_drawn(tmp_path, picture, monkeypatch):
    for i in range(3):
        picture(tmp_path / str(i) / "x.png", seed=i)
    whole = load_data(f"folder:{tmp_path}")
    monkeypatch.setattr(folder, "EAGER_BYTES", 0)
    lazy = load_data(f"folder:{tmp_path}")
    assert isinstance(lazy.images, image_files.ImageFiles)
    assert lazy.images.shape == tuple(whole.images.shape)
    one, other = draw_batch(whole, 3, 0), draw_batch(lazy, 3, 0)
    assert torch.equal(one.images, other.images)
    assert one.indices == other.indices


@pytest.mark.parametrize("eager", [True, False])
def test_the_content_of_a_folder_is_all_of_it(tmp_path, picture, monkeypatch, eager):
    """An image outside the batch decides results, too: it may be a decoy, or what an attacker knows."""
    if not eager:
        monkeypatch.setattr(folder, "EAGER_BYTES", 0)
    for i in range(3):
        picture(tmp_path / str(i) / "x.png", seed=i)

    def content():
        return load_data(f"folder:{tmp_path}").content

    contents = [content()]
    assert content() == contents[0]
    picture(tmp_path / "1" / "x.png", seed=9, mode="RGB" if eager else "L")  # a file of another size
    contents.append(content())
    (tmp_path / "1" / "x.png").rename(tmp_path / "0" / "y.png")
    picture(tmp_path / "1" / "x.png", seed=1)
    contents.append(content())
    (tmp_path / "labels.csv").write_text("file,label\n0/x.png,0\n0/y.png,1\n1/x.png,1\n2/x.png,2\n")
    contents.append(content())
    assert len(set(contents)) == 4
    assert load_data("samples").content == ""


@pytest.mark.parametrize("how", ["overwritten", "replaced", "same size and time", "gone"])
def test_files_that_change_after_they_were_planned_are_refused(tmp_path, picture, monkeypatch, how):
    for i in range(2):
        picture(tmp_path / str(i) / "x.bmp", seed=i)
    monkeypatch.setattr(folder, "EAGER_BYTES", 0)
    lazy = load_data(f"folder:{tmp_path}")
    file = tmp_path / "1" / "x.bmp"
    status = file.stat()
    if how == "overwritten":
        picture(file, seed=7)
        os.utime(file, ns=(0, 1))
    elif how == "gone":
        file.unlink()
    else:
        picture(tmp_path / "new.bmp", seed=7)
        if how == "same size and time":
            os.utime(tmp_path / "new.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
            assert (tmp_path / "new.bmp").stat().st_size == status.st_size
        (tmp_path / "new.bmp").replace(file)
    with pytest.raises(InputError, match=r"has changed since the run was planned: |There is no file"):
        draw_batch(lazy, 2, 0)


def test_pipes_and_sockets_are_passed_over_and_never_waited_for(tmp_path, picture, refused):
    picture(tmp_path / "a" / "x.png")
    picture(tmp_path / "b" / "x.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    assert len(load_data(f"folder:{tmp_path}").labels) == 2
    (tmp_path / "labels.csv").write_text("file,label\na/x.png,0\nb/pipe.png,1\n")
    refused("pipe.png is a pipe or a device, not a file")


@pytest.mark.parametrize("names", [("test", "train"), ("Train", "VAL", "test"), ("train",)])
def test_parts_of_a_data_set_are_asked_about(tmp_path, picture, refused, names):
    for name in names:
        for label in "ab":
            picture(tmp_path / name / label / "x.png")
    last = sorted(names)[-1]
    refused(rf"is divided into .*, which are no classes: name the part to attack, folder:.*{last}, or give")
    assert load_data(f"folder:{tmp_path / names[0]}").class_names == ("a", "b")


def test_classes_may_be_called_like_parts_beside_others_or_in_a_listing(tmp_path, picture):
    for name in ("train", "bus"):
        picture(tmp_path / "vehicles" / name / "x.png")
    assert load_data(f"folder:{tmp_path / 'vehicles'}").class_names == ("bus", "train")
    for name in ("train", "test"):
        picture(tmp_path / "listed" / name / "x.png")
    (tmp_path / "listed" / "labels.csv").write_text("file,label\ntrain/x.png,train\ntest/x.png,test\n")
    assert load_data(f"folder:{tmp_path / 'listed'}").class_names == ("test", "train")


@pytest.mark.parametrize("bytes_", [0, 2**30], ids=["read when drawn", "read at once"])
def test_grey_images_with_one_channel(tmp_path, monkeypatch, picture, bytes_):
    monkeypatch.setattr(folder, "EAGER_BYTES", bytes_)
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) + i).save(tmp_path / name / "x.png")
    found = load_data(f"folder:{tmp_path}").in_grey()
    assert found.images.shape == (2, 1, 8, 8)
    assert len(found.mean) == len(found.std) == len(found.mean_image) == 1
    assert draw_batch(found, 2, 0).images.shape == (2, 1, 8, 8)
    assert (found.images[torch.tensor([1])][0, 0] == torch.arange(64).view(8, 8) + 1).all()
    picture(tmp_path / "b" / "y.png", (8, 8))
    with pytest.raises(InputError, match=r"takes grey images and those of folder:.* are in colour: convert"):
        load_data(f"folder:{tmp_path}").in_grey().images[torch.tensor([2])]


def test_a_log_gets_no_progress_bar(tmp_path, picture, capfd):
    """Nor the empty line that a finished one leaves there."""
    picture(tmp_path / "a" / "x.png")
    picture(tmp_path / "b" / "y.png")
    load_data(f"folder:{tmp_path}")
    assert capfd.readouterr() == ("", "")
