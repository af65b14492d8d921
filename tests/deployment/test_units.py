"""Files that keep a side running: what they say, and what the tools for them find wrong."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from fedsys.clients.bank.home import BankHome
from fedsys.clients.bank.home import Facts as BankFacts
from fedsys.deployment.services import (
    LONGEST_NAME,
    bank_service,
    coordinator_service,
    service_name,
)
from fedsys.deployment.units import KINDS, bank_files, coordinator_files, next_steps
from fedsys.errors import UsageError
from fedsys.federation.home import Facts, Home
from fedsys.tables import Column, Label, Schema
from fedsys.trust.keys import make_keys

SCHEMA = Schema(label=Label("late"), columns=(Column("age", "number"),))
OWNER = 10001
PASSWORD = "correct-horse"
DATABASE = f"postgresql+psycopg://reader:{PASSWORD}@db.bank.example:6432/cards"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Away from /tmp, which a unit refuses; the folders belong to an ordinary user."""
    if os.geteuid() == 0:
        base = Path("/var/lib") / f"fedsys-test-{os.getpid()}"
        base.mkdir()
        yield base
        shutil.rmtree(base)
    else:
        base = Path.home() / f".fedsys-test-{os.getpid()}"
        base.mkdir()
        yield base
        shutil.rmtree(base)


def owned(folder):
    """Gives a folder to an ordinary user, where we may."""
    if os.geteuid() == 0:
        os.chown(folder, OWNER, OWNER)
    return folder


@pytest.fixture(scope="module")
def coordinator_key(folders):
    return make_keys(folders / "coordinator-keys").public.signing


@pytest.fixture
def bank(folders, coordinator_key, request):
    """Makes a bank's folder with rows that lie somewhere."""
    made = []

    def make(
        source=DATABASE, query="SELECT * FROM late", server="fl.example.org:8443", name="home"
    ):
        folder = folders / f"{name}-{len(made)}-{re.sub('[^a-z]', '', request.node.name)[:40]}"
        made.append(folder)
        facts = BankFacts("bank-a", "eu-credit", server, coordinator_key, source, query)
        BankHome.create(folder, facts, SCHEMA, b"a certificate")
        return owned(folder)

    return make


@pytest.fixture
def coordinator(folders, request):
    """Makes a federation's folder."""

    def make(host="fl.example.org", listen="0.0.0.0"):
        folder = folders / f"federation-{request.node.name[:60].replace('[', '-').strip(']')}"
        Home.create(folder, Facts("eu-credit", host, 8443, listen, 3), SCHEMA)
        return owned(folder)

    return make


def settings(text):
    """Section -> [(key, value)] of a unit; fails on a line that is none."""
    found, section = {}, None
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if head := re.fullmatch(r"\[(\w+)\]", line):
            section = found.setdefault(head[1], [])
            continue
        key, equals, value = line.partition("=")
        assert equals and re.fullmatch(r"[A-Z]\w+", key), line
        section.append((key, value))
    return found


def the_unit(files):
    (text,) = files.values()
    return text


# --- systemd -------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["bank", "coordinator"])
def test_a_unit_runs_as_the_folder_s_owner_and_writes_there_alone(side, bank, coordinator):
    home = bank() if side == "bank" else coordinator()
    make = bank_files if side == "bank" else coordinator_files
    [(name, text)] = make("systemd", home, program=Path("/opt/fedsys/bin/fedsys")).items()
    service = dict(settings(text)["Service"])
    assert name == ("fedsys-bank-a-eu-credit.service" if side == "bank" else
                    "fedsys-eu-credit.service")  # fmt: skip
    words = '"bank" "join"' if side == "bank" else '"federation" "serve"'
    assert service["ExecStart"] == f'"/opt/fedsys/bin/fedsys" {words} "--home" "{home}"'
    assert service["ReadWritePaths"] == f'"{home}"'
    assert service["User"] not in ("root", "0")
    for key, value in {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "PrivateTmp": "yes",
                       "KillMode": "mixed", "Restart": "on-failure"}.items():  # fmt: skip
        assert service[key] == value
    environment = [value for key, value in settings(text)["Service"] if key == "Environment"]
    assert "FLWR_TELEMETRY_ENABLED=0" in environment
    assert "MemoryMax" not in service


def test_memory_is_bounded_where_that_is_asked_for(bank):
    home = bank()
    assert dict(settings(the_unit(bank_files("systemd", home, memory="3G")))["Service"])[
        "MemoryMax"] == "3G"  # fmt: skip
    with pytest.raises(UsageError, match="like 4G"):
        bank_files("systemd", home, memory="much")


def systemd(*arguments):
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        [tool, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("side", ["bank", "coordinator"])
def test_systemd_finds_nothing_wrong_with_a_unit(side, bank, coordinator, tmp_path):
    program = Path(shutil.which("true"))  # it has to be there, and is not started
    files = (
        bank_files("systemd", bank(source="env:ROWS"), program=program, memory="4G")
        if side == "bank"
        else coordinator_files("systemd", coordinator(), program=program)
    )
    [(name, text)] = files.items()
    (tmp_path / name).write_text(text)
    said = systemd("verify", "--man=no", str(tmp_path / name))
    assert said.returncode == 0, said.stderr
    assert name not in said.stderr
    # Of 10, which is worst: it reports what a unit leaves open.
    said = systemd("security", "--offline=yes", "--threshold=25", str(tmp_path / name))
    assert said.returncode == 0, said.stdout


def test_strange_signs_of_a_path_reach_the_program_as_they_are(folders, coordinator_key, tmp_path):
    folder = folders / 'a b%h$HOME"q'
    facts = BankFacts("bank-a", "eu-credit", "fl.example.org:8443", coordinator_key, DATABASE, "S")
    BankHome.create(folder, facts, SCHEMA, b"a certificate")
    program = Path(shutil.which("true"))
    text = the_unit(bank_files("systemd", owned(folder), program=program))
    service = dict(settings(text)["Service"])
    assert service["ExecStart"].endswith('a b%%h$$HOME\\"q"')
    assert service["ReadWritePaths"].endswith('a b%%h$HOME\\"q"')
    (tmp_path / "strange.service").write_text(text)
    said = systemd("verify", "--man=no", str(tmp_path / "strange.service"))
    assert said.returncode == 0 and "strange.service" not in said.stderr, said.stderr


def test_homes_are_hidden_unless_something_lies_there(bank):
    program = Path("/opt/fedsys/bin/fedsys")
    for rows, hidden in [("/srv/rows.csv", "yes"), ("/home/anna/rows.csv", "read-only")]:
        text = the_unit(bank_files("systemd", bank(source=rows, query=None), program=program))
        if os.geteuid() == 0:  # else the test's own folder is in a home
            assert dict(settings(text)["Service"])["ProtectHome"] == hidden


def test_rows_in_tmp_are_refused_as_a_service_has_a_tmp_of_its_own(bank):
    with pytest.raises(UsageError, match="/tmp of its own"):
        bank_files("systemd", bank(source="/tmp/rows.csv", query=None))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of root's")
@pytest.mark.parametrize("kind", ["systemd", "compose"])
def test_a_folder_of_root_s_is_refused(kind, bank):
    home = bank()
    os.chown(home, 0, 0)
    with pytest.raises(UsageError, match="belongs to root"):
        bank_files(kind, home)


# --- containers ----------------------------------------------------------------------------------


def compose(files):
    return yaml.safe_load(files["compose.yaml"])


def test_a_bank_in_compose_has_no_port_and_no_right_it_does_not_need(bank):
    home = bank()
    made = compose(bank_files("compose", home, memory="3G"))
    assert set(made) == {"name", "services", "volumes"}
    (service,) = made["services"].values()
    assert service["command"] == ["fedsys", "bank", "join"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in service and "privileged" not in service
    uid = home.stat().st_uid
    assert service["user"].startswith(f"{uid}:") and uid != 0
    assert service["healthcheck"]["test"] == ["CMD", "fedsys", "doctor", "--json"]
    assert made["volumes"]["home"]["driver_opts"]["device"] == str(home)
    assert service["environment"]["FEDSYS_HOME"] == service["volumes"][0]["target"]
    assert service["mem_limit"] == "3g"


def test_a_coordinator_in_compose_is_reached_where_its_host_says(coordinator):
    home = coordinator()
    (service,) = compose(coordinator_files("compose", home))["services"].values()
    assert service["ports"] == ["8443:8443"]


def test_a_host_of_this_machine_is_published_to_this_machine_alone(coordinator):
    home = coordinator(host="localhost")
    (service,) = compose(coordinator_files("compose", home))["services"].values()
    assert service["ports"] == ["127.0.0.1:8443:8443"]


def test_a_secret_of_compose_reaches_the_command_and_its_health(bank, tmp_path):
    made = compose(bank_files("compose", bank(source="env:ROWS")))
    (service,) = made["services"].values()
    assert made["secrets"] == {"rows": {"file": "./ROWS.secret"}} and service["secrets"] == ["rows"]
    secret = tmp_path / "rows"
    secret.write_text("sqlite:///a b.db\n")
    (tmp_path / "fedsys").write_text('#!/bin/sh\necho "$ROWS" "$@"\n')
    (tmp_path / "fedsys").chmod(0o755)
    for words, said in [(service["command"], "bank join"),
                        (service["healthcheck"]["test"][1:], "doctor --json")]:  # fmt: skip
        words = [one.replace("$$", "$").replace("/run/secrets/rows", str(secret)) for one in words]
        done = subprocess.run(words, capture_output=True, text=True, check=True,
                              env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})  # fmt: skip
        assert done.stdout == f"sqlite:///a b.db {said}\n"


def test_what_a_container_cannot_reach_is_refused(bank, coordinator):
    for kind in ("compose", "kubernetes"):
        with pytest.raises(UsageError, match="the container itself"):
            bank_files(kind, bank(server="127.0.0.1:8443"))
        with pytest.raises(UsageError, match="its database is localhost"):
            bank_files(kind, bank(source="postgresql+psycopg://u@localhost/cards"))
    home = coordinator(listen="127.0.0.1")
    with pytest.raises(UsageError, match=r"--listen 0\.0\.0\.0"):
        coordinator_files("kubernetes", home)


def objects(files):
    (name,) = set(files) - {"Containerfile"}
    found = list(yaml.safe_load_all(files[name]))
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


def test_a_bank_in_kubernetes_has_no_rights_and_connects_to_what_it_needs(bank):
    made = objects(bank_files("kubernetes", bank()))
    assert set(made) == {"PersistentVolumeClaim", "StatefulSet", "NetworkPolicy"}
    pod = made["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"] + pod["initContainers"]:
        closed = container["securityContext"]
        assert closed["readOnlyRootFilesystem"] is True
        assert closed["allowPrivilegeEscalation"] is False
        assert closed["capabilities"] == {"drop": ["ALL"]}
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts <= {volume["name"] for volume in pod["volumes"]}
    policy = made["NetworkPolicy"]["spec"]
    assert policy["ingress"] == []
    ports = [port["port"] for rule in policy["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 8443, 6432]


def test_a_coordinator_in_kubernetes_is_reached_at_one_port_and_reaches_nobody(coordinator):
    made = objects(coordinator_files("kubernetes", coordinator()))
    assert set(made) == {"PersistentVolumeClaim", "StatefulSet", "NetworkPolicy", "Service"}
    labels = made["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert made["Service"]["spec"]["selector"] == labels
    assert made["Service"]["spec"]["type"] == "ClusterIP"
    assert made["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert made["NetworkPolicy"]["spec"]["egress"] == []
    (container,) = made["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    names = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"]["port"] in names


def test_a_server_with_an_address_is_the_only_one_a_bank_may_connect_to(bank):
    policy = objects(bank_files("kubernetes", bank(server="192.0.2.7:8443")))["NetworkPolicy"]
    assert policy["spec"]["egress"][1]["to"] == [{"ipBlock": {"cidr": "192.0.2.7/32"}}]


def test_rows_in_files_are_a_volume_of_their_own(bank, folders):
    query = folders / "rows.sql"
    query.write_text("SELECT 1")
    files = bank_files("kubernetes", bank(source="/srv/rows.csv", query=None))
    pod = objects(files)["StatefulSet"]["spec"]["template"]["spec"]
    assert {"name": "rows", "mountPath": "/srv", "readOnly": True} in pod["containers"][0][
        "volumeMounts"]  # fmt: skip
    with pytest.raises(UsageError, match="one folder"):
        bank_files("kubernetes", bank(source="sqlite:////srv/rows.db", query=str(query)))


def test_kubernetes_own_client_knows_every_field(bank, coordinator):
    kubernetes = pytest.importorskip(
        "kubernetes", "37", reason="the kubernetes client is not installed"
    )
    api = kubernetes.client.ApiClient()
    types = {"PersistentVolumeClaim": "V1PersistentVolumeClaim", "StatefulSet": "V1StatefulSet",
             "NetworkPolicy": "V1NetworkPolicy", "Service": "V1Service"}  # fmt: skip
    for files in (bank_files("kubernetes", bank(source="env:ROWS")),
                  bank_files("kubernetes", bank(source="/srv/rows.csv", query=None)),
                  coordinator_files("kubernetes", coordinator())):  # fmt: skip
        for kind, table in objects(files).items():
            read = api.deserialize(json.dumps(table), types[kind], "application/json")
            assert _pruned(api.sanitize_for_serialization(read)) == _pruned(table)


def _pruned(value):
    """Without what is empty, which the client leaves out."""
    if isinstance(value, dict):
        return {key: pruned for key, one in value.items() if (pruned := _pruned(one)) is not None}
    return [_pruned(one) for one in value] if isinstance(value, list) else value


# --- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_holds_a_secret(kind, bank):
    home = bank()
    texts = list(bank_files(kind, home).values())
    texts += next_steps(kind, bank_service(home), Path("/srv/files"))
    secrets = [path.read_bytes().strip() for path in home.rglob("*") if path.is_file()
               and path.parent.name in ("keys", "secrets") and path.suffix != ".pub"]  # fmt: skip
    assert secrets
    for text in texts:
        assert PASSWORD not in text
        assert not any(secret in text.encode() for secret in secrets if secret)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_folder_gives_the_same_files(kind, bank):
    home = bank(source="env:ROWS")
    assert bank_files(kind, home) == bank_files(kind, home)


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_steps_name_the_files_that_there_are(kind, coordinator):
    home = coordinator()
    said = "\n".join(next_steps(kind, coordinator_service(home), Path("/srv/files")))
    for name in coordinator_files(kind, home):
        assert f"/srv/files/{name}" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_bank_without_rows_is_told_to_name_them(kind, bank):
    with pytest.raises(UsageError, match="fedsys bank check --source"):
        bank_files(kind, bank(source="", query=None))


def test_an_unknown_kind_or_image_is_refused_by_name(bank):
    home = bank()
    with pytest.raises(UsageError, match=r"unknown 'sytemd'.*systemd"):
        bank_files("sytemd", home)
    with pytest.raises(UsageError, match="image"):
        bank_files("compose", home, image="fedsys; rm")


def test_long_names_stay_apart_and_fit_kubernetes():
    long = [service_name(f"fedsys-{'a' * 60}-{end}") for end in ("x", "y")]
    assert len(set(long)) == 2 and all(len(name) <= LONGEST_NAME for name in long)
    assert service_name("fedsys-a.b") != service_name("fedsys-a-b")
    for name in [*long, service_name("fedsys-a.b")]:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)


def test_an_image_is_made_of_packages_with_hashes_and_runs_as_nobody_much(bank):
    text = bank_files("compose", bank())["Containerfile"]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "ARG BASE"  # no default: whoever builds it names a digest
    assert any("--require-hashes" in line for line in lines)
    assert not any(line.startswith("ADD") or "curl" in line or "apt" in line for line in lines)
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER 10001:10001"]
    copied = [
        line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line
    ]
    root = Path(__file__).parents[2]
    copied += re.findall(r"COPY (\S+ \S+ \S+) \./", text)[0].split()
    for name in copied:
        assert (root / name).exists(), name
