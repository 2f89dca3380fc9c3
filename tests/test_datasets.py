"""The papers' data sets, read from files in their layouts that the tests write."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from vidiffedu import datasets
from vidiffedu.core import complaint, seeded, to_uint8
from vidiffedu.data import bouncing
from vidiffedu.datasets import DATASETS, BairClips, labels_of, open_set
from vidiffedu.player import save_clip


def film(path, frames=8, seed=0):
    save_clip(path, bouncing(1, frames, 16, generator=seeded(seed))[0], scale=1)


def pictures(folder, numbers, name="{:05d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for k in numbers:
        Image.fromarray(np.full((18, 24, 3), k % 256, np.uint8)).save(folder / name.format(k))


def paths_of(part):
    return {path.name for path, _, _ in part.clips}


def sides(name, root, **how):
    how = dict(frames=4, size=8, progress=False, index=False) | how
    return {s: open_set(name, root, s, **how) for s in ("train", "test")}


# ---------------------------------------------------------------- folders and names


def test_kth_splits_by_person_and_cuts_in_its_ranges(tmp_path):
    for person in (1, 20, 21, 25):
        film(tmp_path / "walking" / f"person{person:02d}_walking_d1_uncomp.mp4", 20, person)
    ranges = "person01_walking_d1\t\tframes\t3-8, 11-16\nperson20_walking_d1 frames 1-20\n"
    (tmp_path / "00sequences.txt").write_text("Some words first.\n\n" + ranges)
    found = sides("kth", tmp_path, hop=1)
    assert {p[6:8] for p in paths_of(found["train"])} == {"01", "20"}
    assert {p[6:8] for p in paths_of(found["test"])} == {"21", "25"}
    first = [start for path, _, start in found["train"].clips if "person01" in path.name]
    assert first == [2, 3, 4, 10, 11, 12]  # frames 2..7 and 10..15, from 0, four at a time
    clip = found["train"][0]
    assert clip.shape == (4, 1, 8, 8) and -1 <= clip.min() and clip.max() <= 1


def test_human36m_splits_by_subject(tmp_path):
    for k, subject in enumerate((1, 8, 9, 11)):
        film(tmp_path / f"S{subject}" / "Videos" / f"Walking {subject}.mp4", seed=k)
    found = sides("human36m", tmp_path)
    assert {p[8:-4] for p in paths_of(found["train"])} == {"1", "8"}
    assert {p[8:-4] for p in paths_of(found["test"])} == {"9", "11"}


def test_ucf101_splits_by_group_and_knows_classes(tmp_path):
    for k, (kind, group) in enumerate([("Archery", 7), ("Archery", 8), ("Bowling", 25)]):
        film(tmp_path / "UCF-101" / kind / f"v_{kind}_g{group:02d}_c01.mp4", seed=k)
    found = sides("ucf101", tmp_path)
    assert paths_of(found["test"]) == {"v_Archery_g07_c01.mp4"}
    names, numbers = labels_of(found["train"])
    by_name = {p.name: names[i] for (p, _, _), i in zip(found["train"].clips, numbers.tolist())}
    assert by_name == {"v_Archery_g08_c01.mp4": "Archery", "v_Bowling_g25_c01.mp4": "Bowling"}


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("kinetics600", "train/abseiling/a.mp4", "test/b.mp4"),
        ("taichi", "train/x.mp4", "test/y.mp4"),
        ("skytimelapse", "sky_train/v/v_1/f.mp4", "sky_test/v/v_2/g.mp4"),
    ],
)
def test_folders_say_the_side(tmp_path, name, train, test):
    film(tmp_path / train, seed=1)
    film(tmp_path / test, seed=2)
    found = sides(name, tmp_path)
    assert paths_of(found["train"]) == {train.rpartition("/")[2]}
    assert paths_of(found["test"]) == {test.rpartition("/")[2]}


def test_skies_and_faces_as_pictures(tmp_path):
    pictures(tmp_path / "sky_train" / "a" / "a_1", range(5))
    pictures(tmp_path / "sky_test" / "b" / "b_1", range(5))
    assert {k: len(v) for k, v in sides("skytimelapse", tmp_path).items()} == dict(train=1, test=1)
    how = dict(frames=4, size=8, progress=False, index=False)
    assert len(open_set("faceforensics", tmp_path / "sky_train", "train", **how)) == 1


def test_cityscapes_keeps_to_its_snippets(tmp_path):
    city = tmp_path / "leftImg8bit_sequence"
    name = "bochum_000000_{:06d}_leftImg8bit.png"
    pictures(city / "train" / "bochum", range(60), name)  # two snippets, one after the other
    pictures(city / "val" / "ulm", range(30), name)
    part = open_set("cityscapes", tmp_path, "train", 8, 8, hop=4, progress=False, index=False)
    starts = [start for _, _, start in part.clips]
    assert starts == [k for k in range(0, 53, 4) if k % 30 <= 22]
    grey = (part[len(part) - 1][:, 0, 0, 0] + 1) * 127.5
    assert grey.round().tolist() == list(range(starts[-1], starts[-1] + 8))
    assert len(open_set("cityscapes", tmp_path, "valid", 8, 8, progress=False, index=False)) == 3


def test_davis_reads_its_lists(tmp_path):
    for scene in ("bear", "camel", "walking"):
        pictures(tmp_path / "DAVIS" / "JPEGImages" / "480p" / scene, range(5))
    lists = tmp_path / "DAVIS" / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("bear\nwalking\n")
    (lists / "val.txt").write_text("camel\n")
    how = dict(frames=4, size=8, progress=False, index=False)
    got = {
        side: {
            film.pictures[0].parent.name
            for _, film, _ in open_set("davis", tmp_path, side, **how).clips
        }
        for side in ("train", "valid")
    }
    assert got == dict(train={"bear", "walking"}, valid={"camel"})


def test_the_street_is_computed_and_read_back(tmp_path):
    datasets.write_street(tmp_path, size=32, flows=2, frames=(6, 4), every=10, warm=20)
    how = dict(frames=4, size=32, progress=False, index=False)
    train, test = (open_set("street", tmp_path, side, **how) for side in ("train", "test"))
    assert (len(train), len(test)) == (2, 2) and train[0].shape == (4, 1, 32, 32)
    assert train[0].std() > 0 and not torch.equal(train[0], train[1])
    assert not torch.equal(train[0], test[0])  # flows of their own, not the first frames again


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    film(tmp_path / "somewhere.mp4")
    how = dict(progress=False, index=False)
    lines = [
        complaint(open_set, "kth", tmp_path, "train", 4, 8, **how),
        complaint(open_set, "kths", tmp_path, "train", 4, 8, **how),
        complaint(open_set, "kth", tmp_path, "trains", 4, 8, **how),
        complaint(open_set, "kth", tmp_path / "none", "train", 4, 8, **how),
        complaint(open_set, "bair", tmp_path, "train", 4, 8),
    ]
    starts = "root: got", "data set: got 'kths'", "side: got 'trains'", "root: got", "root: got"
    for line, start in zip(lines, starts):
        assert line.startswith(start), line
    assert "person01_walking" in lines[0] and "tfrecords" in lines[4]


def test_each_data_set_says_where_it_is_had_and_for_which_paper():
    methods = {"score", "bridge", "vector", "masks", "residual"}
    for name, entry in DATASETS.items():
        assert entry.where and entry.layout and set(entry.paper) <= methods, name
        assert all("source" in how for how in entry.paper.values()), name


# ---------------------------------------------------------------- TFRecord files


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def proto(number, data):
    "A field of bytes."
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(features):
    "A TensorFlow Example: {name: bytes or list of floats}."
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = proto(1, proto(1, value))
        else:
            feature = proto(2, proto(1, struct.pack(f"<{len(value)}f", *value)))
        entries += proto(1, proto(1, name.encode()) + proto(2, feature))
    return proto(1, entries)


def crc_of(data):
    "CRC-32C by long division of polynomials, the other way round than the library."
    bits = [int(b) for byte in data for b in f"{byte:08b}"[::-1]]
    bits = [b ^ (k < 32) for k, b in enumerate(bits + [0] * 32)]
    rest = 0
    for b in bits:
        rest = (rest << 1 | b) ^ (0x11EDC6F41 if rest >> 31 else 0)
    return int(f"{rest & 0xFFFFFFFF:032b}"[::-1], 2) ^ 0xFFFFFFFF


def masked(data):
    crc = crc_of(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data):
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + bytes(4)


def bair_record(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    features = {"0/action": [0.5, -1.0]}
    for k, p in enumerate(pixels):
        features |= {f"{k}/image_aux1/encoded": p.tobytes(), f"{k}/image_main/encoded": b"other"}
    return record(example(features)), pixels


@pytest.fixture(scope="module")
def bair(tmp_path_factory):
    root, films = tmp_path_factory.mktemp("bair"), []
    for side, names in dict(train=("traj_0_to_1", "traj_2_to_2"), test=("traj_0_to_0",)).items():
        folder = root / "softmotion30_44k" / side
        folder.mkdir(parents=True)
        for k, name in enumerate(names):
            made = [bair_record(10 * k + i) for i in range(2 - k)]
            (folder / f"{name}.tfrecords").write_bytes(b"".join(data for data, _ in made))
            films += [(side, pixels) for _, pixels in made]
    return root, films


def test_the_checksum_is_the_known_one():
    assert datasets.crc32c(b"123456789") == crc_of(b"123456789") == 0xE3069283


def test_bair_is_read_without_tensorflow(bair):
    root, films = bair
    part = open_set("bair", root, "train", frames=10, size=64)
    own = [pixels for side, pixels in films if side == "train"]
    assert len(part) == 3 * len(own) == 9
    for i, clip in enumerate(part):
        want = own[i // 3][10 * (i % 3) : 10 * (i % 3) + 10]
        assert np.array_equal(to_uint8(clip).permute(0, 2, 3, 1).numpy(), want)
    assert len(BairClips(root, "test", 30)) == 2
    every_other = BairClips(root, "test", 5, size=16, channels=1, stride=2)
    assert every_other[0].shape == (5, 1, 16, 16)
    train, held = part.split(0.3)
    assert (len(train), len(held)) == (6, 3)
    near = open_set("bair", root, "train", frames=10, size=64, hop=1)
    for share, sizes in {0.01: [42, 21], 0.3: [42, 21], 0.6: [21, 42], 0.99: [21, 42]}.items():
        one, other = near.split(share)  # a record's clips share frames: they stay together
        assert [len(one), len(other)] == sizes
        assert not {place for place, _ in one.clips} & {place for place, _ in other.clips}


def test_a_broken_record_file_is_named(bair, tmp_path):
    root, _ = bair
    whole = next(root.rglob("train/traj_0_to_1.tfrecords")).read_bytes()
    folder = tmp_path / "softmotion30_44k" / "train"
    folder.mkdir(parents=True)
    file = folder / "a.tfrecords"
    for bad in (whole[:-5], b"\x01" + whole[1:], whole[:7]):
        file.write_bytes(bad)
        assert "broken at byte" in complaint(BairClips, tmp_path, "train", 10)
    file.write_bytes(whole)
    assert "at most 30" in complaint(BairClips, tmp_path, "train", 31)
    assert len(BairClips(tmp_path, "train", 30)) == 2


def test_numbers_in_a_record_are_passed_over():
    data = varint(1 << 3) + varint(300) + varint(2 << 3 | 5) + bytes(4) + varint(3 << 3 | 1)
    data += bytes(8) + proto(4, b"end")
    found = [
        (k, bytes(v) if isinstance(v, memoryview) else v) for k, v in datasets.proto_fields(data)
    ]
    assert found == [(1, 300), (2, bytes(4)), (3, bytes(8)), (4, b"end")]
    assert "kind 3" in complaint(lambda: list(datasets.proto_fields(varint(1 << 3 | 3))))
