# What the job files share; they source it.

# attended COMMAND...: run a job step to its end and return its exit code. When Slurm sends this shell SIGTERM, the
# processes of the step are sent it; srun itself would have them killed at once.
attended() {
    "$@" & # a shell does nothing about a signal before its child in the foreground ends
    local step=$! code
    trap 'asked=1; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
    asked=1
    while [[ $asked ]]; do # a signal ends the wait, not the step
        asked=
        wait "$step"
        code=$?
    done
    return "$code"
}

# queued_again CODE RUN: put the job back into the queue if it was stopped by a signal (143) or if another try may go
# better (75), but not if the last try that ended with 75 had come as far.
queued_again() {
    local place state
    case $1 in
    143) ;;
    75)
        place=$(cat "$2/checkpoints.json" "$2/machine.json" 2>/dev/null | sha256sum)
        if [[ $place == "$(cat "$2/tried" 2>/dev/null)" ]]; then
            echo "not queued again: the last try came as far; submit the job again if that was chance"
            return
        fi
        mkdir -p "$2" && echo "$place" >"$2/tried" || return
        ;;
    *) return ;;
    esac
    # What Slurm ends itself is left to it: a cancelled job stays so, and it may put back what it preempts.
    state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)
    if [[ ${state:-RUNNING} == RUNNING ]]; then
        scontrol requeue "$SLURM_JOB_ID"
    else
        echo "not queued again from here: Slurm has ended the job"
    fi
}
