"""AP hosts: adapters modelled in Python behind the gdbstub; the words over sysfs."""
