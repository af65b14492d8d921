"""Tasks by name, and that naming them costs nothing."""

import pickle
import subprocess
import sys

import pytest

from fedsys import tasks
from fedsys.errors import UsageError
from fedsys.tasks import TASKS


def test_importing_tasks_imports_no_heavy_library():
    code = (
        "import sys, fedsys.tasks as t; t.TASKS.parse('table:x.csv,y'); t.TASKS.parse('a.py:b');"
        "heavy = {'tensorflow', 'keras', 'pandas', 'sklearn', 'pyarrow'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("digits", tasks.Digits()),
        ("digits:cnn", tasks.Digits(model="cnn")),
        ("fashion-mnist:folder,model=2nn", tasks.FashionMnist("folder", "2nn")),
        ("credit-default:client=SEX", tasks.CreditDefault(client="SEX")),
        ("heart:folder", tasks.Heart("folder")),
        ("table:a.csv,y,test=0.5", tasks.Table("a.csv", "y", test=0.5)),
        ("synthetic:0.5,0.5,iid=yes", tasks.Synthetic(0.5, 0.5, iid=True)),
        ("folder/mine.py:make", tasks.UserTask("folder/mine.py", "make")),
        ("C:\\mine.py:make", tasks.UserTask("C:\\mine.py", "make")),
    ],
)
def test_a_task_is_read_from_text_and_survives_a_table(text, spec):
    assert TASKS.parse(text) == spec
    assert TASKS.decode(text) == spec
    assert TASKS.decode(TASKS.encode(spec)) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digit", "task: unknown task 'digit'; did you mean 'digits'?"),
        (
            "digits:cn",
            "task.model: unknown model 'cn' of task 'digits'; did you mean 'cnn'? known: cnn, log",
        ),
        ("fashion-mnist:model=3nn", "task.model: unknown model '3nn' of task 'fashion-mnist'"),
        ("credit-default:client=SX", "task.client: unknown column 'SX'"),
        ("table:a.csv", "task: 'table' needs label"),
        ("table:a.csv,y,test=1", "task.test: must be between 0 and 1, got 1.0"),
        ("table:a.csv,y,y", "task.client: 'y' is the label"),
        ("synthetic:beta=-1", "task.beta: must be 0 or more, got -1"),
        ("synthetic:alpha=nan", "task.alpha: must be 0 or more, got nan"),
        ("synthetic:clients=0", "task.clients: must be 1 or more, got 0"),
        ("mine.py", "task: 'mine.py' names no function; write mine.py:FUNCTION"),
        ("mine.py:make it", "task: 'make it' is no name of a function; write mine.py:FUNCTION"),
    ],
)
def test_a_wrong_name_or_value_is_one_line(text, message):
    with pytest.raises(UsageError) as raised:
        TASKS.parse(text)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_table_of_a_user_task_has_no_other_keys():
    with pytest.raises(UsageError, match=r"train\.task\.model: unknown key of 'a\.py:b'"):
        TASKS.decode({"name": "a.py:b", "model": "mlp"}, "train.task")


def test_a_loaded_task_can_go_to_another_process():
    """Engines hand the model's maker to workers."""
    task = tasks.Digits("logistic").load()
    assert pickle.loads(pickle.dumps(task.model))().count_params() == 650
