#!/usr/bin/env bash
# A real SLURM of one node on the loopback interface, for `pytest -m slurm` and for trying sweeps out.
#
#   tools/slurm_on_loopback.sh install   Debian's slurm-wlm and munge, by apt-get; needs root
#   tools/slurm_on_loopback.sh start     munged, slurmctld and slurmd; ends when `srun hostname` has answered
#   tools/slurm_on_loopback.sh status    what runs, and how to talk to it; exit code 1 where it does not answer
#   tools/slurm_on_loopback.sh stop      ends jobs and daemons; the folder stays, with its logs
#   tools/slurm_on_loopback.sh env       the line that lets a shell talk to it: eval "$(tools/slurm_on_loopback.sh env)"
#   tools/slurm_on_loopback.sh run COMMAND...   install, start, run the command with it, stop what this call started;
#                                        where it cannot be had it says why, runs nothing and ends with 0
#
# Everything it writes is under SLURM_LOOPBACK_DIR (default: ${TMPDIR:-/tmp}/unveil-slurm-<user>): configuration, a munge
# key of its own, state and logs. SLURM_LOOPBACK_PORT (16817) and the port after it are the daemons'. Each command may be
# given again. Exit code 3: it cannot be installed or started here; the last line on stderr says why.
set -euo pipefail

DIR="${SLURM_LOOPBACK_DIR:-${TMPDIR:-/tmp}/unveil-slurm-$(id -un)}"
PORT="${SLURM_LOOPBACK_PORT:-16817}"
PROGRAMS=(munged munge slurmctld slurmd sbatch squeue srun scancel scontrol)
export SLURM_CONF="$DIR/slurm.conf"
export PATH="$PATH:/usr/sbin:/sbin"

give_up() {
    printf 'slurm_on_loopback: %s\n' "$*" >&2
    exit 3
}

missing() {
    local program
    for program in "${PROGRAMS[@]}"; do
        command -v "$program" >/dev/null || printf '%s ' "$program"
    done
}

install() {
    local absent
    absent="$(missing)"
    if [[ -z "$absent" ]]; then
        echo "slurm-wlm and munge are installed"
        return
    fi
    command -v apt-get >/dev/null || give_up "missing: $absent; there is no apt-get here, install SLURM and munge by hand"
    [[ "$(id -u)" == 0 ]] || give_up "missing: $absent; apt-get needs root: sudo $0 install"
    # What postinst scripts would start needs an init system and a configuration; both are this script's business.
    apt-get update -qq || give_up "missing: $absent; apt-get update failed, is there a network?"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >"$(log install)" 2>&1 \
        || give_up "missing: $absent; apt-get install slurm-wlm munge failed, see $(log install)"
    absent="$(missing)"
    [[ -z "$absent" ]] || give_up "slurm-wlm and munge are installed, yet these are missing: $absent"
    echo "slurm-wlm and munge have been installed"
}

log() {
    mkdir -p "$DIR/log"
    printf '%s/log/%s.log' "$DIR" "$1"
}

running() { # NAME: whether the daemon of that name is alive
    local number
    number="$(cat "$DIR/run/$1.pid" 2>/dev/null)" || return 1
    # A pid may have been given to another process since: the name settles it. A killed one that init has not reaped
    # yet is a zombie.
    [[ -n "$number" ]] && grep -qs "^$1" "/proc/$number/comm" && ! grep -qs '^State:.*Z' "/proc/$number/status"
}

answers() { timeout 10 sinfo --noheader >/dev/null 2>&1; }

configure() {
    local node cpus memory
    node="$(hostname -s)"
    cpus="$(nproc --all)"
    # SLURM refuses a node that has less than it claims; a tenth is left to the machine.
    memory="$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)"
    mkdir -p "$DIR"/{run,log,state,spool,munge}
    chmod 755 "$DIR" "$DIR"/{run,munge}
    [[ -s "$DIR/munge/munge.key" ]] || (umask 077 && head -c 128 /dev/urandom >"$DIR/munge/munge.key")
    cat >"$SLURM_CONF" <<CONF
ClusterName=loopback
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
# A credential lives this long (5 s is the least), and a requeued job waits for the end of its old one. That must be
# longer than KillWait and 2 s: then an srun that a broken node left has given up, and does not kill the new step.
AuthInfo=socket=$DIR/munge/munge.socket,cred_expire=15
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
# No cgroups, so that it runs in containers. Nothing is accounted: \`sacct\` has nothing to say.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
PreemptMode=OFF
JobRequeue=1
# A job that is asked to end gets this long before it is killed.
KillWait=10
MinJobAge=300
OverTimeLimit=0
# A node whose daemon is silent this long is down, and its jobs are queued again; it returns with the daemon.
SlurmdTimeout=20
ReturnToService=2
MaxArraySize=4
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
CONF
}

begin() { # NAME PROGRAM ARGUMENTS...: start a daemon that is not there, and wait for its pid
    local name="$1" waited=0
    shift
    running "$name" && return
    rm -f "$DIR/run/$name.pid"
    "$@" >>"$(log "$name.start")" 2>&1 || give_up "$name did not start; see $(log "$name") and $(log "$name.start")"
    until running "$name"; do
        ((waited++ < 100)) || give_up "$name ended at once; see $(log "$name")"
        sleep 0.1
    done
}

begin_slurmd() {
    begin slurmd slurmd -N "$(hostname -s)"
}

start() {
    local absent waited=0
    absent="$(missing)"
    [[ -z "$absent" ]] || give_up "missing: $absent; run: $0 install"
    if running munged && running slurmctld && running slurmd && answers; then
        echo "SLURM answers already"
        status
        return
    fi
    running slurmctld || configure
    begin munged munged --key-file "$DIR/munge/munge.key" --socket "$DIR/munge/munge.socket" \
        --pid-file "$DIR/run/munged.pid" --log-file "$DIR/log/munged.log" --seed-file "$DIR/munge/munge.seed"
    begin slurmctld slurmctld
    begin_slurmd
    until answers; do
        ((waited++ < 30)) || give_up "slurmctld does not answer; see $(log slurmctld)"
        sleep 0.5
    done
    # A node that was killed before is down until its daemon has registered.
    scontrol update "nodename=$(hostname -s)" state=resume >/dev/null 2>&1 || true
    timeout 60 srun --time=1 --chdir=/ hostname >"$(log srun)" 2>&1 || give_up "srun hostname failed; see $(log srun)"
    echo "SLURM answers"
    status
}

stop() {
    local name waited
    if answers; then
        scancel --user="$(id -un)" >/dev/null 2>&1 || true
        waited=0
        while ((waited++ < 60)) && [[ -n "$(squeue --noheader 2>/dev/null)" ]]; do sleep 0.5; done
    fi
    for name in slurmd slurmctld munged; do
        running "$name" || continue
        kill "$(cat "$DIR/run/$name.pid")" 2>/dev/null || true
        waited=0
        while running "$name" && ((waited++ < 100)); do sleep 0.1; done
        running "$name" && kill -9 "$(cat "$DIR/run/$name.pid")"
        rm -f "$DIR/run/$name.pid"
    done
    echo "stopped; $DIR stays"
}

status() {
    local name
    for name in munged slurmctld slurmd; do
        running "$name" && echo "$name: pid $(cat "$DIR/run/$name.pid")" || echo "$name: not running"
    done
    if ! answers; then
        echo "no answer from SLURM in $DIR; run: $0 start"
        return 1
    fi
    sinfo --noheader --format='partition %P of %D node, %c CPUs, %m MB: %T'
    echo "to talk to it: export SLURM_CONF=$SLURM_CONF"
}

run() { # COMMAND...
    local code=0 was_there=yes
    running slurmctld || was_there=no
    (install && start) || code=$?
    if [[ "$code" == 3 ]]; then
        echo "SKIPPED, there is no SLURM here (the line above says why): $*"
        return 0
    fi
    [[ "$code" == 0 ]] || return "$code"
    "$@" || code=$?
    [[ "$was_there" == yes ]] || stop
    return "$code"
}

case "${1:-}" in
    install | start | stop | status) "$1" ;;
    run)
        shift
        run "$@"
        ;;
    env) echo "export SLURM_CONF=$SLURM_CONF" ;;
    *)
        sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"
        exit 2
        ;;
esac
