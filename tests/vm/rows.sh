# shellcheck shell=bash
# Sourced by who runs the faults that need the virtual machine: which rows these are.
# shellcheck disable=SC2034

# By faults.sh, in the order in which they run.
vm_rows="D1 D2 D4 D5 D13 D14 D3 D9 D11 A1 A2 A5 T1 T2 K7"
# By service.sh.
service_rows="K3 K9"
