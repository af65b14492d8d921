"""From a side of a federation to the texts of its files.

systemd      NAME.service
compose      compose.yaml, Containerfile
kubernetes   NAME.yaml, Containerfile

No file holds a secret: keys stay in the side's folder, a database's password there or in a file
that the unit names. The same folder gives the same texts.
"""

from __future__ import annotations

import json
import pwd
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fedsys.deployment.services import (
    BANK,
    Service,
    bank_service,
    coordinator_service,
    is_address,
    is_loopback,
    shell,
)
from fedsys.errors import UsageError, nearest

KINDS = ("systemd", "compose", "kubernetes")
UID = 10001
"""The user in the image. Kubernetes runs the side as this one, Compose as its folder's owner."""
INSIDE = "/var/lib/fedsys"
"""Where a container sees the side's folder, or the volume that holds it."""
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Nothing tells its makers anything."""
_MEMORY = re.compile(r"[1-9][0-9]*[MG]")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]{0,254}")
_HIDDEN = ("/tmp", "/var/tmp", "/dev")
_HOMES = ("/home", "/root", "/run/user")


def bank_files(kind: str, home: Path, **options: Any) -> dict[str, str]:
    """Name -> text of the files that keep the bank in a folder running; options as `files_of`."""
    return files_of(kind, bank_service(home), **options)


def coordinator_files(kind: str, home: Path, **options: Any) -> dict[str, str]:
    """Name -> text of the files that keep a federation's server running; options as `files_of`."""
    return files_of(kind, coordinator_service(home), **options)


def files_of(
    kind: str,
    service: Service,
    *,
    program: Path | None = None,
    image: str = "fedsys:local",
    memory: str | None = None,
) -> dict[str, str]:
    """Name -> text. Raises UsageError where such files could not work, and says what would.

    kind: one of KINDS. program: the command `fedsys` that systemd starts; this one's if None.
    image: what containers are made of. memory: the most that the side may use, such as '4G'.
    """
    if kind not in KINDS:
        raise UsageError(f"deployment: unknown {kind!r}; {nearest(kind, KINDS)}")
    if memory is not None and not _MEMORY.fullmatch(memory):
        raise UsageError(f"memory {memory!r}: write it like 4G or 1500M")
    if not _IMAGE.fullmatch(image):
        raise UsageError(f"image {image!r}: write it like registry.example.org/fedsys:0.1.0")
    if kind == "systemd":
        return {f"{service.name}.service": _systemd(service, program or _own_program(), memory)}
    _require_reachable(service)
    file = "compose.yaml" if kind == "compose" else f"{service.name}.yaml"
    fill = _compose if kind == "compose" else _kubernetes
    return {file: fill(service, image, memory), "Containerfile": _text("Containerfile")}


def next_steps(kind: str, service: Service, folder: Path, image: str = "fedsys:local") -> list[str]:
    """Commands that set the files of a folder to work, one a line, for people."""
    name = service.name
    image_made = (
        f"make the image {image} in fedsys' source folder (its head says how): "
        f"{shell((str(folder / 'Containerfile'),))}"
    )
    if kind == "systemd":
        unit = shell((str(folder / f"{name}.service"),))
        steps = [
            f"sudo install -m 644 {unit} /etc/systemd/system/",
            f"sudo systemctl daemon-reload && sudo systemctl enable --now {name}",
            f"journalctl -u {name} -f",
        ]
        if service.variable:
            steps.insert(0, f"write {service.variable}=ADDRESS into {_variables_file(service)}, "
                            "of mode 0600 and root's")  # fmt: skip
        return steps
    if kind == "compose":
        file = shell((str(folder / "compose.yaml"),))
        steps = [image_made, f"docker compose -f {file} up -d", f"docker compose -f {file} logs -f"]
        if service.variable:
            secret = shell((str(folder / f"{service.variable}.secret"),))
            steps.insert(1, f"write the database's address into {secret}, of mode 0600 and of user "
                            f"{service.owner}")  # fmt: skip
        return steps
    part = f"{INSIDE}/part"
    steps = [
        image_made,
        f"kubectl apply -f {shell((str(folder / f'{name}.yaml'),))}",
        f"tar -C {shell((str(service.home),))} -c . | kubectl exec -i {name}-0 -c home -- sh -c "
        f"'mkdir -m 700 {part} && tar -x -C {part} && mv {part} {INSIDE}/home'",
        f"move {service.home} away from here: the same keys in two places hinder each other",
        f"kubectl logs -f {name}-0",
    ]
    if service.variable:
        steps.insert(1, f"kubectl create secret generic {name}-rows "
                        f"--from-file={service.variable}=FILE_WITH_THE_ADDRESS")  # fmt: skip
    if service.read:
        steps.insert(1, f"make a claim {name}-rows, whose volume holds "
                        f"{', '.join(path.name for path in service.read)}")  # fmt: skip
    if service.side != BANK:
        steps.append(
            "for banks outside the cluster, when you mean it: kubectl patch service "
            f'{name} -p \'{{"spec":{{"type":"LoadBalancer"}}}}\''
        )
    return steps


# --- one kind each -------------------------------------------------------------------------------


def _systemd(service: Service, program: Path, memory: str | None) -> str:
    if service.owner == 0:
        raise UsageError(
            f"{service.home}: belongs to root, and a service is to run as a user of its own: "
            "useradd --system --create-home --home-dir /var/lib/fedsys fedsys, "
            "and make it as that user: sudo -u fedsys -H fedsys ..."
        )
    for path in (service.home, *service.read):
        if _is_below(path, _HIDDEN):
            raise UsageError(f"{path}: the service has a /tmp of its own: move it elsewhere")
    near = (service.home, program, *service.read)
    command = [program, *service.command, "--home", service.home]
    return _text(
        "unit.service",
        service=service,
        user=_user(service.owner),
        command=" ".join(_word(str(one)) for one in command),
        home=_quoted(str(service.home)),
        home_path=str(service.home).replace("%", "%%"),
        homes_hidden=not any(_is_below(path, _HOMES) for path in near),
        memory=memory,
        environment=QUIET,
        variables_file=_variables_file(service) if service.variable else None,
    )


def _compose(service: Service, image: str, memory: str | None) -> str:
    if service.owner == 0:
        raise UsageError(
            f"{service.home}: belongs to root, and a container is to run as another user: "
            "make it as an ordinary user, or: chown -R "
            f"{UID}:{UID} {shell((str(service.home),))}"
        )
    command: list[str] = ["fedsys", *service.command]
    check = ["fedsys", "doctor", "--json"]
    if service.variable:
        command, check = (_with_secret(service.variable, words) for words in (command, check))
    publish = f"{service.port}:{service.port}"
    return _text(
        "compose.yaml",
        service=service,
        image=image,
        inside=INSIDE,
        command=command,
        check=["CMD", *check],
        publish=f"127.0.0.1:{publish}" if is_loopback(service.host) else publish,
        memory=memory.lower() if memory else None,
        environment={**_inside_environment(), "FEDSYS_HOME": INSIDE},
    )


def _kubernetes(service: Service, image: str, memory: str | None) -> str:
    folders = sorted({path.parent for path in service.read})
    if len(folders) > 1:
        raise UsageError(
            f"{service.query}: lies elsewhere than the rows: put both into one folder, which is "
            "one volume then, and: fedsys bank check --source ... --query ..."
        )
    if any(_is_below(path, (str(service.home),)) for path in service.read):
        raise UsageError(f"{folders[0]}: rows do not belong into the bank's own folder: move them")
    return _text(
        "kubernetes.yaml",
        service=service,
        image=image,
        inside=INSIDE,
        uid=UID,
        memory=f"{memory or '4G'}i",
        environment={**_inside_environment(), "FEDSYS_HOME": f"{INSIDE}/home"},
        rows_folder=str(folders[0]) if folders else None,
        egress=_egress(service),
    )


# --- parts ---------------------------------------------------------------------------------------


def _require_reachable(service: Service) -> None:
    if service.side == BANK:
        there: list[tuple[str, str]] = [("the federation's server", service.host)]
        if service.database:
            there.append(("its database", service.database[0]))
        for what, host in there:
            if is_loopback(host):
                raise UsageError(
                    f"{what} is {host}, which in a container is the container itself: "
                    "use --systemd here, or name another host"
                )
    elif is_loopback(service.listen):
        raise UsageError(
            f"{service.home}: its server listens on {service.listen}, where nothing outside a "
            "container reaches it: make the federation with --listen 0.0.0.0, or use --systemd"
        )


def _egress(service: Service) -> list[dict[str, Any]]:
    """Where a bank connects to: its server and its database."""
    if service.side != BANK:
        return []
    there = [(service.host, service.port)]
    if service.database:
        there.append(service.database)
    return [{"port": port, "block": _block(host)} for host, port in there]


def _block(host: str) -> str | None:
    if not is_address(host):
        return None
    return f"{host}/{128 if ':' in host else 32}"


def _inside_environment() -> dict[str, str]:
    return {**QUIET, "HOME": "/tmp", "TF_CPP_MIN_LOG_LEVEL": "3"}


def _with_secret(variable: str, words: Sequence[str]) -> list[str]:
    """The command, with the variable read from the secret's file."""
    text = f'{variable}="$(cat /run/secrets/rows)" && export {variable} && exec {" ".join(words)}'
    return ["sh", "-c", text]


def _variables_file(service: Service) -> str:
    return f"/etc/fedsys/{service.name}.env"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _own_program() -> Path:
    return Path(sys.executable).absolute().with_name("fedsys")


def _is_below(path: Path, folders: Sequence[str]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _word(text: str) -> str:
    """A word of a systemd unit's command, where `$$` is one `$`."""
    return _quoted(text.replace("$", "$$"))


def _quoted(text: str) -> str:
    """A word of a systemd unit: quoted, and without specifiers."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"'


def _in_compose(value: Any) -> str:
    """A value in YAML, where Compose would put variables for a single `$`."""
    return json.dumps(value).replace("$", "$$")


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fedsys.deployment", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["json"] = json.dumps  # a JSON text is a YAML text, with every sign quoted
    environment.filters["compose"] = _in_compose
    return environment


def _text(name: str, **values: Any) -> str:
    text: str = _environment().get_template(f"{name}.j2").render(values)
    return text.strip("\n") + "\n"
