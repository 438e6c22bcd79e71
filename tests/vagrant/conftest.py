"""A cluster of vagrant's machines, which are gone afterwards whatever happened."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vagrant.box import ensure_box
from tests.vagrant.hosts import ROOT, Hosts, chosen, eventually
from vastskyd.core import answers, api

JOURNALS = ROOT / "build/vagrant/journals"


@pytest.fixture(scope="module")
def hosts(request: pytest.FixtureRequest, debs: tuple[Path, ...]) -> Iterator[Hosts]:
    """They are up, with the packages installed by the Vagrantfile."""
    if "VAGRANT_DOTFILE_PATH" not in os.environ:
        pytest.fail("./run test-vagrant runs these: on machines apart from yours", pytrace=False)
    hosts = Hosts(chosen(ensure_box()))
    before = request.session.testsfailed
    try:
        hosts.up()
        yield hosts
    finally:
        try:
            if request.session.testsfailed > before:
                hosts.save_journals(JOURNALS)
        finally:
            hosts.destroy()


@pytest.fixture(scope="module")
def cluster(hosts: Hosts) -> Hosts:
    """A cluster of them all, with all disks of the storage servers."""
    manager = hosts.manager
    roles = "--role manager --role head" if manager in hosts.heads else "--role manager"
    manager.run(f"vastskyctl cluster init --name vagrant {roles} {manager.addresses}")
    for role, members in (("head", hosts.heads), ("storage", hosts.stores)):
        token = manager.ask(api.Token, f"cluster token --role {role}").token
        for host in members:
            if host is not manager:
                host.run(f"vastskyctl join {token} {host.addresses}")

    def status() -> answers.ClusterStatus:
        return manager.ask(answers.ClusterStatus, "status")

    eventually("all are online", lambda: status().nodes_online == len(hosts.all), 120)
    for host in hosts.stores:
        disks = host.run(f"ls /dev/disk/by-id/virtio-{host.name}-*").split()
        assert len(disks) == 2
        host.run(f"vastskyctl disk enrol {' '.join(disks)}")
    eventually("the disks are online", lambda: status().disks_online == 2 * len(hosts.stores), 120)
    return hosts
