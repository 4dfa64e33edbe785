"""Adapters as a Python object, asked as a kernel asks them. No machine is needed."""

from harness.ap.adapters import Adapters
from harness.ap.fault import Fault
from harness.ap.instruction import ResponseCode
from harness.model.ap.hardware import ApHardware, Card, Mode
from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask

adapters = Adapters(
    ApHardware(cards={5: Card(13, Mode.CCA), 6: Card(12)}, domains=ApMask.of([4, 0xAB])),
    clock=lambda: 0.0,
)
queue = Apqn(5, 4)
TAPQ, ZAPQ = queue.value, 2 << 24 | queue.value

adapters.pqap(TAPQ, 0, 0)
adapters.change_card(5, checkstopped=True)
adapters.pqap(TAPQ, 0, 0)
adapters.plug(5, Card(14))  # another card at the same place
adapters.inject(Fault(ResponseCode.BUSY, on="ZAPQ", apqn=queue, times=2))
for _ in range(3):
    adapters.pqap(ZAPQ, 0, 0)
adapters.unplug(5)
adapters.pqap(TAPQ, 0, 0)

print(*adapters.since(), sep="\n")
