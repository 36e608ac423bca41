"""Bad files, changes and classes, as the command itself answers them: one line, exit code 2, never a trace.

Each case is a file, or a change to a good one, and a piece of the line that must come back.
"""

import sys
import tempfile
from pathlib import Path

import pytest

from shoal.search.cli import run_command_line
from tests.helpers.small_files import CLASS, MIXED, OWN, TEXT, TOY

FILES = [
    # keys
    (TOY + "seed: 1\nseed: 2\n", "run.yaml:10: the key `seed` stands here and in line 9"),
    (TOY + "population: {interval: 10}\n", "run.yaml:9: the key `population` stands here and in line 7"),
    (
        TOY.replace("high: 1.0}", "high: 1.0, high: 0.5}", 1),
        "run.yaml:5: the key `high` stands twice in this line",
    ),
    (TOY + "seed: 1\n'seed': 2\n", "run.yaml:10: the key `seed`"),
    ("a: &a {x: 1}\n" + TOY.replace("{steps: 200}", "{<<: *a, <<: *a}"), "the key `<<` stands twice"),
    (TOY + "on: push\n", "run.yaml:9: a key must be a word, but `on` is read as true or false; put it in"),
    (TOY + "1: x\n", "run.yaml:9: a key must be a word, but `1` is read as a number; put it in quotes"),
    (TOY + "~: x\n", "run.yaml:9: a key must be a word, but `~` is read as nothing"),
    (TOY + "1.5: x\n", "a key must be a word, but `1.5` is read as a number"),
    (TOY + "2024-05-01: x\n", "a key must be a word"),
    (TOY + "? [a]\n: x\n", "a key must be a word, but this one is a list or a mapping"),
    (TEXT.replace("code:", "no:"), "run.yaml:2: a key must be a word, but `no` is read as true or false"),
    (TOY + "populaton: {}\n", "populaton: unknown key; did you mean `population`?"),
    (TOY + "'': 1\n", "unknown key"),
    # what is no run
    ("", "run.yaml: must be a mapping of keys such as `name: demo`, but is empty"),
    ("# nothing but words\n", "but is empty"),
    ("- a\n- b\n", "must be a mapping of keys such as `name: demo`, got a list"),
    ("just words\n", "must be a mapping of keys such as `name: demo`, got `just words`"),
    ("seed: 1\n", "name: is required"),
    # what is no YAML
    (TOY + "directory: [a, b\n", "run.yaml:10: is not YAML: "),
    (TOY + "directory: a: b\n", "run.yaml:9: is not YAML: mapping values are not allowed here; put words with"),
    (TOY + "directory: @here\n", "run.yaml:9: is not YAML: "),
    (TOY + "directory: %x\n", "run.yaml:9: is not YAML: "),
    (TOY + "directory: *gone\n", "run.yaml:9: is not YAML: found undefined alias 'gone'"),
    (TOY + 'directory: "a\n', "is not YAML: while scanning a quoted scalar"),
    (TOY + "cluster:\n\tbroods: 1\n", "run.yaml:10: is not YAML: "),
    (TOY + "directory: a\0b\n", "run.yaml:9: is not YAML: it holds the character"),
    (TOY + "---\nname: again\n", "run.yaml:9: is not YAML: expected a single document"),
    (TOY + f"directory: {'[' * 3000}\n", "run.yaml:9: brackets and mappings lie more than 64 deep"),
    (TOY + f"directory: {'[' * 3000}{']' * 3000}\n", "lie more than 64 deep in one another"),
    (TOY + "directory: &a [*a]\n", "run.yaml:9: with its aliases it holds itself"),
    # values that YAML takes for something else
    (TOY.replace("name: toy", "name: 2024-31-12"), "run.yaml:1: 2024-31-12 looks like a date"),
    (TOY.replace("name: toy", "name: 2024-05-01"), "run.yaml:1: 2024-05-01 looks like a date"),
    (TOY + "directory: 2024-05-01 25:61:00\n", "run.yaml:9: 2024-05-01 25:61:00 looks like a date"),
    (TOY.replace("name: toy", "name: 007"), "run.yaml:1: 007 begins with 0; write 7, or put it in quotes"),
    (TOY + "seed: 010\n", "run.yaml:9: 010 begins with 0; write 10"),
    (TOY + "seed: 08\n", "run.yaml:9: 08 begins with 0; write 8"),
    (TOY + "seed: 0x_\n", "run.yaml:9: 0x_ is no int"),
    (TOY + "seed: 1:30\n", "run.yaml:9: 1:30 looks like a time; put it in quotes"),
    (TOY + f"seed: {'7' * 5000}\n", "run.yaml:9: a number of more than 4300 digits"),
    (TOY + f"seed: 0x{'f' * 5000}\n", "run.yaml:9: a number of more than 4300 digits"),
    (TOY + "seed: 1e400\n", "run.yaml:9: 1e400 is larger than numbers go"),
    (TOY + "seed: !!binary aGk=\n", "of the kind `binary` is not taken"),
    (TOY + "seed: !!set {a, b}\n", "of the kind `set` is not taken"),
    (TOY + "seed: !mine 3\n", "3 of the kind `!mine` is not taken"),
    (TOY + "seed: !!python/object/apply:os.getcwd []\n", "is not taken"),
    (TOY + "directory: =\n", "run.yaml:9: = has a meaning of its own in YAML; put it in quotes"),
    (
        TOY.replace("name: toy", "name: 1e5"),
        "name: must be a word, got 100000.0; if it is meant as a word, put",
    ),
    (TOY.replace("name: toy", "name: 20240501"), "name: must be a word, got 20240501"),
    (TOY.replace("name: toy", "name: yes"), "name: must be a word, got true"),
    (TOY.replace("name: toy", "name:"), "name: must be a word, got null"),
    (TOY.replace("{steps: 200}", "[200]"), "training: must be a mapping of keys, got [200]"),
]

CHANGES = [
    # how a change is written
    (TOY, "seed", "seed: a change must be written key=value"),
    (TOY, "=", "=: a change must be written key=value"),
    (TOY, "=1", "a change must be written key=value"),
    (TOY, ".seed=1", ".seed=1: a change must be written key=value"),
    (TOY, "seed.=1", "seed.=1: a change must be written key=value"),
    (TOY, "training..steps=1", "a change must be written key=value"),
    (TOY + "seed: 0\n", "seed.x=1", "seed holds a value, so nothing can be set inside it"),
    (TOY, "name.x=1", "name holds a value, so nothing can be set inside it"),
    (TOY, "population.exploit={kind: truncation", "population.exploit={kind: truncation: is not YAML"),
    (TOY, 'name="a', "is not YAML: while scanning a quoted scalar"),
    (TOY, "name='a' b", "is not YAML"),
    (TOY, "directory=[D_DATA]/runs", "As a word it is written 'directory=\"[D_DATA]/runs\"'."),
    (TOY, "training={steps: 40 #, interval: 4}", "training"),
    (TOY, "training={steps: 40} # short", "`# short` would be left out of it"),
    (TOY, "training={steps: &n 40}", "would be left out of it"),
    (TOY, "training={steps: !!int 40}", "would be left out of it"),
    (TOY, "training={steps: 40, steps: 80}", "the key `steps` stands twice in this line"),
    (TOY, "name=2024-31-12", "looks like a date, which no value is; put it in quotes. As a word it is written"),
    (TOY, "seed=010", "010 begins with 0; write 10"),
    (TOY, f"seed={'7' * 5000}", "a number of more than 4300 digits cannot be"),
    (TOY, f"seed={'[' * 3000}", "lie more than 64 deep"),
    (TOY, "training=steps: 40", "training: must be a mapping of keys, got 'steps: 40'"),
    (TOY, "name=a #1", "name: must be letters, digits, - and _"),
    (TOY, "name=|", "name: must be letters, digits, - and _"),
    (TOY, "name=---", "name: must be letters, digits, - and _"),
    (TOY, "name=", "name: must be a word, got null"),
    # words that are no numbers, and numbers that are no words
    (TOY, "population.interval=yes", "population.interval: must be a whole number, got true"),
    (TOY, "cluster.broods=true", "cluster.broods: must be a whole number, got true"),
    (TEXT, "training.batch=on", "training.batch: must be a whole number, got true"),
    (TOY, "seed=yes", "seed: must be a whole number, got true"),
    (TEXT, "data.megabytes=yes", "data.megabytes: must be a number, got true"),
    (TEXT, "training.learning_rate=true", "training.learning_rate: must be a number, got true"),
    (TOY, "cluster.restarts=no", "cluster.restarts: must be a whole number, got false"),
    (TOY, "population.backtrack=1", "population.backtrack: must be true or false, got 1"),
    (TOY, "cluster.stack=0", "cluster.stack: must be true or false, got 0"),
    (TOY, "cluster.resources={tpu: true}", "cluster.resources.tpu: must be a number, got true"),
    (TOY, 'training.steps="200"', "training.steps: must be a whole number, got '200'"),
    (TOY, "training.steps=2.5", "training.steps: must be a whole number, got 2.5"),
    (TEXT, "data.proportions={code: yes, more: 1}", "data.proportions.code: must be a number, got true"),
    (TEXT, "data.text_field=5", "data.text_field: must be a word, got 5"),
    (TEXT, "data.text_field={code: 5}", "data.text_field: must be a word, got 5"),
    (TEXT, "data.text_field={cod: a}", "data.text_field.cod: no such group; did you mean `code`?"),
    (TEXT, 'data.text_field="{a} {b"', "data.text_field: must be a field or a template of fields in braces"),
    (TEXT, 'data.text_field="{} b"', "data.text_field: must be a field or a template such as"),
    # kinds of rows
    (TEXT, "data.format={kind: instruction, prompt: q}", "data.format.answer: is required"),
    (TEXT, "data.format={kind: chat, fild: a}", "data.format.fild: unknown key; did you mean `field`?"),
    (TEXT, "data.format=chats", "data.format.kind: must be one of instruction, chat, preference, tokens, got"),
    (TEXT, "data.format={kind: chat, too_long: shrink}", "data.format.too_long: must be 'drop' or 'cut'"),
    (TEXT, "data.rows=instruction", "data.rows: instruction needs data.format of kind instruction or chat"),
    (TEXT, "data.rows=token", "data.rows: must be "),
    (
        TEXT.replace("data: {", "data: {rows: preference, "),
        "data.format={kind: tokens}",
        "data.rows: must be tokens with data.format of kind tokens, got preference",
    ),
    (TEXT, "data.format=tokens", "data.groups.code: installed has plain text alone, but data asks for records"),
    (
        TEXT.replace("data: {", "data: {text_field: body, "),
        "data.format=preference",
        "data.text_field: data.format is read instead; leave it out",
    ),
    (TEXT, "data.columns={a: {kind: tensor}}", "data.columns.a.shape: is required"),
    (TEXT, "data.columns={a: {kind: number, type: int7}}", "data.columns.a.type: must be one of bool, uint8,"),
    (
        TEXT,
        "data.columns={a: {kind: image, size: [0, 3]}}",
        "data.columns.a.size: must hold a height and a width",
    ),
    (TEXT, "data.columns={a: picture}", "data.columns.a.kind: must be one of number, class, tensor"),
    (
        TEXT.replace("data: {", "data: {columns: {a: number}, "),
        "data.rows=tokens",
        "data.columns: needs data.rows: columns, got tokens",
    ),
    (TEXT, "data.groups.more=[a, b]", "data.groups.more: must be one place, got ['a', 'b']"),
    (MIXED, "mixing.policy={kind: aioli, sweeps: true}", "sweeps: must be a whole number, got true"),
    # numbers without end
    (TEXT, "data.megabytes=.inf", "data.megabytes: must be a finite number, got .inf"),
    (TEXT, "model.expansion=.inf", "model.expansion: must be a finite number, got .inf"),
    (TEXT, "data.proportions={code: .inf, more: 1}", "data.proportions.code: must be a finite number"),
    (TEXT, "training.learning_rate=.inf", "training.learning_rate: must be a finite number, got .inf"),
    (TEXT, "training.clip=.nan", "training.clip: must be above 0, but got nan"),
    (TEXT, "training.steps=99999999999999999999", "training.steps: must be less than 9223372036854775808"),
    (TOY, "training.steps=.inf", "training.steps: must be a whole number, got .inf"),
    # domains
    (
        TEXT,
        "hyperparameters.dropout={kind: float, low: 0, high: 2}",
        "training.dropout must be at least 0 and below 1, but",
    ),
    (
        TEXT,
        "hyperparameters.beta2={kind: ordered, values: [0.9, 1.5]}",
        "training.beta2 must be at least 0 and below 1",
    ),
    (TEXT, "hyperparameters.weight_decay={kind: float, low: -1, high: -0.5}", "may become -1.0"),
    (TEXT, "hyperparameters.learning_rate={kind: float, low: -1, high: 1}", "must be above 0, but may"),
    (TEXT, "hyperparameters.learning_rate={kind: ordered, values: [low, high]}", "may become 'low'"),
    (TEXT, "hyperparameters.dropout={kind: bool}", "training.dropout must be a number, but may become false"),
    (
        TEXT,
        "hyperparameters.dropout={kind: constant, value: 1}",
        "must be at least 0 and below 1, but may become 1",
    ),
    (TEXT, "hyperparameters.dropout={kind: categorical, values: [[0.1], 0]}", "must be a number"),
    (TEXT, "hyperparameters.warmup={kind: float, low: 1, high: 9}", "give it `kind: int` in place of float"),
    (TEXT, "hyperparameters.clip={kind: ordered, values: [1, .nan]}", "nan equals nothing"),
    (TEXT, "hyperparameters.clip={kind: ordered, values: 3}", "clip.values: must be a list, got 3"),
    (TEXT, "hyperparameters.clip={kind: float, low: 1, high: .inf}", "clip.high: must be a finite number"),
    (TOY, "hyperparameters.h0={kind: float, low: -1e308, high: 1e308}", "low and high must be finite, and so"),
    (TOY, "hyperparameters.h0={kind: categorical, values: [a, b]}", "must be a number, but may become 'a'"),
    (TOY, "hyperparameters.h0={kind: int, low: 0, high: true}", "h0.high: must be a whole number, got true"),
    (MIXED, "hyperparameters.mixing.rate.low=-1", "rate must be at least 0, but got -1"),
    (MIXED, "hyperparameters.mixing.sweeps={kind: float, low: 1, high: 3}", "give it `kind: int` in place"),
    (MIXED, "hyperparameters.mixing.floor={kind: ordered, values: [0, a]}", "mixing.floor must be a number"),
    # places
    (TOY, "directory=$NOT_SET_AT_ALL/run", "directory: there is no environment variable NOT_SET_AT_ALL"),
    (
        TOY,
        "directory=runs/${name_of_run}",
        "directory: there is no environment variable name_of_run, got runs/",
    ),
    (TOY, "directory=cost-in-$", "directory: write $$ for a dollar sign that begins no variable"),
    (TOY, "directory=~nobody_here/run", "directory: there is no user nobody_here"),
    (TEXT, "data.corpus=$NOT_SET_AT_ALL", "data.corpus: there is no environment variable NOT_SET_AT_ALL"),
    (TEXT, "data.groups.more=$NOT_SET_AT_ALL/x", "data.groups.more: there is no environment variable"),
    (TEXT, "data.tokenizer=$NOT_SET_AT_ALL/x", "data.tokenizer: there is no environment variable"),
    # rules that never act
    (TOY, "population={members: 3, exploit: {kind: truncation, fraction: 0.25}}", "use at least 0.334"),
    (TOY, "population={members: 5, exploit: {kind: truncation, fraction: 0.1}}", "use at least 0.2"),
    (TOY, "population.interval=200", "population.interval: must be less than training.steps (200), or nothing"),
    (
        TOY,
        "population={members: 4, interval: 200, mode: asynchronous}",
        "population.interval: must be less than",
    ),
    (
        TOY,
        "population={members: 4, interval: 200, exploit: none, cull: {grace: 50}}",
        "population.interval: must be less than training.steps (200)",
    ),
    (
        TOY,
        "population={members: 4, interval: 20, exploit: {kind: threshold, deviations: 1.8}}",
        "population.exploit.deviations: must be below 1.732, since none of 4 members can lie further",
    ),
    (TOY, "population.burn_in=181", "population.burn_in: the last decision before the end is at step 180"),
    (
        TOY,
        "population={members: 4, interval: 100, exploit: t_test}",
        "population.exploit: t_test compares members by two scores at least",
    ),
    (
        TOY,
        "population={members: 4, interval: 20, exploit: none, cull: {grace: 190}}",
        "population.cull.grace: the last decision before the end is at step 180",
    ),
    (
        TOY,
        "population={members: 8, interval: 20, burn_in: 101, "
        "exploit: {kind: multiple_frequency, frequencies: [1, 5]}}",
        "so a part that evolves at every 5th decision never does from step 101 on",
    ),
    (
        TOY,
        "population={members: 12, interval: 20, burn_in: 141, exploit: {kind: fire, patience: 2}}",
        "so evaluators from step 141 on are not judged",
    ),
    (
        TOY,
        "population={members: 12, interval: 20, backtrack: true, exploit: {kind: fire, patience: 2}}",
        "population.backtrack: copies the best weights that the whole population ever had, but fire keeps",
    ),
    (
        TOY,
        "population={members: 8, interval: 20, backtrack: true, "
        "exploit: {kind: multiple_frequency, frequencies: [1, 5]}}",
        "but multiple_frequency keeps parts of it apart",
    ),
    (TOY, "population={members: 5, start: grid}", "no grid over these domains has 5 points; use 4 or 9"),
]

AGAINST = ["hyperparameters={}", "population.exploit=none"]
SEVERAL = [
    (
        TEXT,
        [*AGAINST, "schedule=[{from_step: 0, hyperparameters: {dropout: 2}}]"],
        "schedule.0.dropout: training.",
    ),
    (TEXT, [*AGAINST, "schedule=[{from_step: 0, hyperparameters: {clip: yes}}]"], "may become true"),
    (
        TOY,
        ["hyperparameters={}", "population={members: 1, exploit: none}", "starts=[{hyperparameters: {h0: 1}}]"],
        "starts.0: the toy needs h0 and h1",
    ),
    (
        TEXT,
        [*AGAINST, "population.members=1", "cluster.broods=1", "starts=[{hyperparameters: {dropout: -1}}]"],
        "starts.0.dropout: training.dropout must be at least 0 and below 1",
    ),
]

CLASSES = [
    (CLASS.replace("steps):", "steps)"), "py:8: SyntaxError: expected ':'"),
    (CLASS.replace("        return 0.0, {}", "      return 0.0, {}\n   x"), "IndentationError"),
    (CLASS.replace("return 0.0, {}", "return (0.0, {}"), "SyntaxError: "),
    (CLASS + "\0", "source code string cannot contain null bytes"),
    (
        "import a_package_that_is_not_there\n" + CLASS,
        "py:1: ModuleNotFoundError: No module named 'a_package_th",
    ),
    ("from numpy import nothing_like_it\n" + CLASS, "py:1: ImportError: "),
    (CLASS + "\nDATA = open('/no/such/file')\n", "py:21: FileNotFoundError: "),
    (CLASS + "\nDATA = np.zeros(2) + np.zeros(3)\n", "py:21: ValueError: operands could not be broadcast"),
    ("import sys\nsys.exit(3)\n", "py:2: it ends the program when it is imported (sys.exit(3))"),
    ("raise KeyError\n" + CLASS, "py:1: KeyError"),
    ("", "must have a class or function `Slope`, but has none"),
    ("Slope = 3\n", "must have a class or function `Slope`, but has none"),
    (CLASS.replace("def train(", "def fit("), "Slope must have the method train(steps), but has none"),
    (CLASS.replace("def state(", "def dump("), "Slope must have the method state(), but has none"),
    (CLASS.replace("train(self, steps)", "train(self)"), "must have the method train(steps), but takes (self)"),
    (CLASS.replace('split="validation"', "split"), "must have the method evaluate(), but takes (self, split)"),
    (CLASS.replace("state, hyperparameters):", "state):"), "must have the method load(state, hyperparameters)"),
    (CLASS.replace("recipe, hyper", "hyper"), "must take (recipe, hyperparameters, seed, device), but takes"),
    (
        CLASS.replace("seed, device", "seed, device, more"),
        "settings.more: is required, since Slope takes it and has no default",
    ),
    ("def Slope(seed): return None\n", "Slope must take (recipe, hyperparameters, seed, device)"),
    (
        "from shoal.trainables.network import Network\n\n\nclass Slope(Network):\n    pass\n",
        "Slope must have the methods build, loss, which",
    ),
]

IDLE = [
    ("data.corpus=corpus", "data.corpus: a class of your own does not look at it; leave it out"),
    ("data={sequence_length: 128}", "data.sequence_length: a class of your own does not look at it"),
    ("model.layers=2", "model.layers: a class of your own does not look at it"),
    ("training.batch=64", "training.batch: a class of your own does not look at it"),
    ("training.evaluation_rows=8", "training.evaluation_rows: a class of your own does not look at it"),
    (
        "mixing.policy=aioli",
        "mixing: needs rows in groups, and Slope takes none; a class that takes them says so by `takes = {",
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # traces are kept there
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def answer(tmp_path, monkeypatch, capsys):
    """Return the command's answer to a file: the one line that it says, after its exit code is looked at."""

    def validate(text: str, *changes: str) -> str:
        Path("run.yaml").write_bytes(text.encode())
        monkeypatch.setattr(sys, "argv", ["shoal", "validate", "run.yaml", *changes])
        with pytest.raises(SystemExit) as ended:
            run_command_line()
        said = capsys.readouterr()
        assert ended.value.code == 2, said
        lines = said.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ") and not said.out, said
        assert "Traceback" not in said.err and "<unicode string>" not in said.err
        return lines[0]

    return validate


@pytest.mark.parametrize(("text", "said"), FILES)
def test_a_bad_file_is_one_line(answer, text: str, said: str) -> None:
    assert said in answer(text)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "nowhere does not; a name on a hub must be downloaded to a folder first"),
        (".", "data.tokenizer: a folder with a tokenizer must hold tokenizer.json"),
    ],
)
def test_a_folder_without_a_tokenizer_is_one_line(answer, place: str, said: str) -> None:
    pytest.importorskip("tokenizers")  # which the extra [hf] installs
    assert said in answer(TEXT, f"data.tokenizer={place}")


@pytest.mark.parametrize(("text", "change", "said"), CHANGES)
def test_a_bad_change_is_one_line(answer, text: str, change: str, said: str) -> None:
    assert said in answer(text, change)


@pytest.mark.parametrize(("text", "changes", "said"), SEVERAL)
def test_bad_schedules_and_starts_are_one_line(answer, text: str, changes: list[str], said: str) -> None:
    assert said in answer(text, *changes)


@pytest.mark.parametrize("case", range(len(CLASSES)))
def test_a_bad_class_is_one_line(answer, case: int) -> None:
    source, said = CLASSES[case]
    module = f"bad_class_{case}"  # a process imports a module once
    Path(f"{module}.py").write_text(source)
    assert said in answer(OWN.replace("MODULE", module))


@pytest.mark.parametrize(("change", "said"), IDLE)
def test_what_a_class_of_ones_own_does_not_look_at_is_refused(answer, change: str, said: str) -> None:
    Path("good_class.py").write_text(CLASS)
    sys.modules.pop("good_class", None)
    assert said in answer(OWN.replace("MODULE", "good_class"), change)


@pytest.mark.parametrize("name", ["json", "shoal", "numpy"])
def test_a_file_with_the_name_of_another_module_is_one_line(answer, name: str) -> None:
    Path("inner").mkdir()
    Path(f"inner/{name}.py").write_text(CLASS)
    said = answer(OWN.replace("MODULE", name) + "code: inner\n")
    assert f"inner/{name}.py is not found, since `{name}` is the name of another module" in said


def test_a_file_that_hides_shoal_from_workers_is_one_line(answer) -> None:
    Path("shoal.py").write_text("ANSWER = 42\n")
    assert "shoal.py: hides Shoal from its workers" in answer(TOY)


@pytest.mark.parametrize("name", ["search", "cluster", "policies", "trainables"])
def test_a_file_of_a_users_own_may_bear_the_name_of_a_folder_of_ours(name: str, monkeypatch) -> None:
    Path(f"{name}.py").write_text(CLASS)
    Path("run.yaml").write_text(OWN.replace("MODULE", name))
    monkeypatch.setattr(sys, "argv", ["shoal", "validate", "run.yaml"])
    sys.modules.pop(name, None)
    with pytest.raises(SystemExit) as ended:
        run_command_line()
    sys.modules.pop(name, None)
    assert ended.value.code == 0


def test_the_trace_of_a_class_that_raises_is_in_the_file_that_is_named(answer) -> None:
    Path("raising_class.py").write_text("def deep():\n    raise KeyError('no')\n\n\ndeep()\n")
    said = answer(OWN.replace("MODULE", "raising_class"))
    assert "raising_class.py:2: KeyError: 'no'. The whole trace is in " in said
    trace = Path(said.rpartition(" in ")[2].rstrip(".")).read_text()
    assert trace.startswith("Traceback (most recent call last)") and "in deep" in trace


def test_there_are_enough_of_them() -> None:
    assert len(FILES) + len(CHANGES) + len(SEVERAL) + len(CLASSES) + len(IDLE) >= 110
