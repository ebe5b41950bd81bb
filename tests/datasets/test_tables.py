"""Tables of images with unusual or wrong content."""

import io

import pytest
from PIL import Image

from clipcal import load_images


@pytest.fixture
def folder(tmp_path):
    for i in range(2):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    return tmp_path


def content():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "png")
    return buffer.getvalue()


class TestText:
    @pytest.mark.parametrize(
        ("text", "match"),
        [
            (b"path;label\n0.png;a\n", r"columns of .* must be separated by ','"),
            (b"path\tlabel\n0.png\ta\n", r"must be separated by ','; for tabs, name it \.tsv"),
            (b"path,label,label\n0.png,a,b\n", r"several columns 'label'; rename all but one"),
            (b"path,label\n0.png,  \n", r"line 2 of .*the 'label' is empty"),
            ("path,label\n0.png,é\n".encode("latin-1"), r"is not encoded in UTF-8; save it as UTF-8"),
            ("path,label\n0.png,a\n".encode("utf-16"), r"is not encoded in UTF-8; save it as UTF-8"),
        ],
    )
    def test_errors(self, folder, text, match):
        (folder / "a.csv").write_bytes(text)
        with pytest.raises(ValueError, match=match):
            load_images(folder / "a.csv")

    @pytest.mark.parametrize("other", ["./0.png", ".//0.png", "x/../0.png"])
    def test_splits_must_not_share_images_in_another_spelling(self, folder, other):
        (folder / "x").mkdir()
        (folder / "a.csv").write_text(f"path,label,split\n0.png,a,train\n{other},a,test\n")
        with (
            pytest.warns(UserWarning, match="repeat the image"),
            pytest.raises(ValueError, match="is in the splits 'train' and 'test'"),
        ):
            load_images(folder / "a.csv")
        (folder / "a.csv").write_text(f"path,label\n0.png,a\n{other},b\n")
        with pytest.raises(ValueError, match="occurs with the labels 'a' and 'b'"):
            load_images(folder / "a.csv")


class TestParquet:
    def load(self, folder, **columns):
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table(columns), folder / "a.parquet")
        return load_images(folder / "a.parquet")

    @pytest.mark.parametrize(
        ("labels", "match"),
        [
            ([1.0, 2.0], r"are float objects, but labels are all str or all int.*columns={'label'"),
            ([1.0, float("nan")], "are float objects"),
            ([True, False], "are bool objects"),
            ([b"a", b"b"], "are bytes objects"),
            ([["a"], ["b"]], "are list objects"),
            (["a", ""], "label of row 1 of .* is empty"),
            (["a", None], "Row 1 of .*: the 'label' is missing"),
        ],
    )
    def test_wrong_labels(self, folder, labels, match):
        with pytest.raises(ValueError, match=match):
            self.load(folder, path=["0.png", "1.png"], label=labels)

    @pytest.mark.parametrize("images", [["0.png", None], [content(), None]])
    def test_missing_images(self, folder, images):
        with pytest.raises(ValueError, match=r"Row 1 of .*: the 'image' is missing"):
            self.load(folder, image=images, label=["a", "b"])

    def test_columns_of_another_type(self, folder):
        with pytest.raises(ValueError, match=r"type int64; images are paths.*columns={'image': \.\.\.}"):
            self.load(folder, image=[1, 2], label=["a", "b"])

    @pytest.mark.filterwarnings("ignore:The classes of")
    def test_numbers_of_splits_and_names(self, folder):
        data = self.load(folder, path=["0.png", "1.png"], label=["a", "b"], split=[0, 1], class_name=[5, 6])
        assert data["0"].paths == ("0.png",)
        assert data["1"].target.tolist() == ["b"]
        assert data.class_names == {"a": "5", "b": "6"}

    def test_empty_and_damaged_files(self, folder):
        arrow = pytest.importorskip("pyarrow")
        empty = {"image": arrow.array([], arrow.binary()), "label": arrow.array([], arrow.string())}
        with pytest.raises(ValueError, match="lists no images"):
            self.load(folder, **empty)
        (folder / "a.parquet").write_bytes(b"text")
        with pytest.raises(ValueError, match=r"a\.parquet' is not a Parquet file"):
            load_images(folder / "a.parquet")
