"""A look around an AP host: queues, an adapter that comes, what a guest could use."""

import tempfile
from contextlib import closing
from pathlib import Path

from harness.ap.workbench import Workbench
from harness.lab.ap import ApLab
from harness.lab.parts import Parts
from harness.machine.saved_state import Method
from harness.model.ap.hardware import Card
from harness.model.ap.mask import ApMask
from harness.settings import Settings

with tempfile.TemporaryDirectory() as place:
    work = Path(place)
    lab = ApLab(Parts(Settings()).ap_host, ways=tuple(Method), work=work)
    with closing(lab.open(lab.spec(), evidence=work)) as host:
        print(host.run("uname -rm").stdout.strip(), host.read_text("/sys/bus/ap/bindings").strip())

        host.adapters.plug(0x2A, Card(14))
        host.write_text("/sys/bus/ap/scans", "1")
        print([name for name in host.list_directory("/sys/bus/ap/devices") if "2a" in name])

        bench = Workbench(host)
        bench.settle(apmask=ApMask.full() - ApMask.of([5, 6]), aqmask=ApMask.full())
        device = bench.device().configure(adapters=(5, 6), domains=(4, 0xAB), control=(0x10,))
        client = bench.client()
        client.open(device)
        client.do("vcpu")
        print(bench.enter_sie(client))

        mark = host.adapters.mark
        client.reset()
        print(*(str(one).partition(" ")[2] for one in host.adapters.since(mark, "ZAPQ")), sep="\n")
        bench.close()
