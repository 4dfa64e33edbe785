"""A user of a vfio-ap device that is no QEMU: one ioctl at a time, each with its errno.

Over ``ap-probe vfio``, which holds the descriptors of VFIO and KVM.
"""

from __future__ import annotations

from harness.ap.attributes import Answer, parse_answer
from harness.ap.matrix_device import MatrixDevice
from harness.errors import HostError
from harness.guest.system import parse_pairs
from harness.guest.transport import Conversation

REQUEST_IRQ = 0
"""Index of the interrupt by which the kernel asks for the device back."""


class VfioClient:
    """Holds a vfio-ap device as a program does.

    :param conversation: with ``ap-probe vfio``.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._is_open = True

    def ask(self, request: str, *, timeout: float = 60) -> Answer:
        """Make one request; the answer has the errno if it was refused."""
        self._conversation.send(request)
        return parse_answer(self._conversation.receive(timeout=timeout))

    def do(self, request: str) -> dict[str, str]:
        """Make a request that must succeed for the test to go on; return its ``key=value``.

        :raise HostError: it was refused.
        """
        answer = self.ask(request)
        if answer.error:
            raise HostError(f"the vfio client could not {request!r}: {answer.error}")
        return parse_pairs(answer.text)

    # -- by group and container ------------------------------------------------------------------

    def open_group(self, device: MatrixDevice) -> None:
        """Open the group of *device* and give it a container of type 1."""
        self.do(f"group /dev/vfio/{device.group}")
        self.do("container")

    def make_machine(self) -> None:
        """Make a virtual machine, tell KVM of the group, let it interpret AP instructions."""
        self.do("kvm")
        self.do("kvm-file")
        self.do("apie")

    def take(self, device: MatrixDevice) -> str:
        """Take the device from the group; return the errno."""
        return self.ask(f"device {device.uuid}").error

    def take_second(self, device: MatrixDevice) -> str:
        """Try to have another device in the same machine; return the errno."""
        self.do(f"group /dev/vfio/{device.group}")
        self.do("container")
        self.do("kvm-file")
        return self.take(device)

    def open(self, device: MatrixDevice) -> None:
        """Have the device in a virtual machine, the whole way by group.

        :raise HostError: a step was refused.
        """
        self.open_group(device)
        self.make_machine()
        if error := self.take(device):
            raise HostError(f"the vfio client could not open {device.uuid}: {error}")

    # -- by its own file and iommufd -------------------------------------------------------------

    def open_file(self, device: MatrixDevice) -> int:
        """Open the device's own file; return the descriptor, there."""
        return int(self.do(f"file /dev/vfio/devices/{device.cdev}")["fd"])

    def open_by_file(self, device: MatrixDevice) -> None:
        """Have the device in a virtual machine, the whole way by its own file and iommufd.

        :raise HostError: a step was refused.
        """
        descriptor = self.open_file(device)
        self.do("kvm")
        self.do(f"kvm-file {descriptor}")
        self.do("apie")
        self.do("bind")
        self.do("attach")

    # -- with the device -------------------------------------------------------------------------

    def reset(self) -> str:
        """Reset the device; return the errno."""
        return self.ask("reset").error

    def requests(self) -> int:
        """Return how often the kernel has asked for the device back since the last look."""
        return int(self.do(f"signalled {REQUEST_IRQ}")["count"])

    def close_device(self) -> None:
        """Let go of the device; the machine stays."""
        self.do("close-device")

    def close(self) -> None:
        """Let go of everything; nothing is held when this returns. May be called again."""
        if self._is_open:
            self._is_open = False
            try:
                self.do("close")
            finally:
                self._conversation.close()
