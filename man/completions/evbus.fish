# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_evbus_global_optspecs
    string join \n bus= config= h/help V/version
end

function __fish_evbus_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_evbus_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_evbus_using_subcommand
    set -l cmd (__fish_evbus_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c evbus -n "__fish_evbus_needs_command" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_needs_command" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_needs_command" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_needs_command" -s V -l version -d 'Print version'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "init" -d 'Make a bus'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "emit" -d 'Write one event, or with --ndjson one a line'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "watch" -d 'Run a command for each event, until told to stop'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "drain" -d 'Run what is due now, then end'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "tail" -d 'Print events as they come'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "ls" -d 'List events, oldest first'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "get" -d 'Print one event exactly as it is stored'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "cancel" -d 'Take back events that wait for their time'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "status" -d 'Show how each group stands: state, lag, retries, dead letters, owner'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "group" -d 'List, make, change, pause, reset and remove groups'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "dead" -d 'List, show, redrive and remove dead letters'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "prune" -d 'Delete old events that every group is done with'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "doctor" -d 'Check store, mount, clock, limits, permissions and the files on the bus'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "check" -d 'Check the config, or whether a pattern matches an event'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "completions" -d 'Print what a shell needs to complete evbus\'s verbs and options'
complete -c evbus -n "__fish_evbus_using_subcommand init" -l shared -d 'Let this Unix group write, whatever anybody\'s umask: a name, a number, or \'group\' for the folder\'s own' -r
complete -c evbus -n "__fish_evbus_using_subcommand init" -l max-event -d 'The largest event, for good [default: 1MiB]' -r
complete -c evbus -n "__fish_evbus_using_subcommand init" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand init" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand init" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -s f -d 'Add a string field to the data' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -s F -d 'Add a field of any JSON type to the data' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l binary -d 'The data is this file\'s bytes (\'@file\', or \'-\' for stdin)' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l ndjson -d 'One event a line, or an array over several lines, gzip or not, from stdin or @FILE: a CloudEvent, or with TYPE the data' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l id -d 'The event\'s id: emitted twice with the same id and source, it is there once' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l source -d 'Who emits, a URI reference (default: //HOST)' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l subject -d 'What the event is about' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l key -d 'The ordering key (default: the subject)' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l time -d 'When it happened (default: now): 10m ago, 09:30, 2026-11-20, RFC 3339' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l at -d 'Let it wait until then: 02:00 (the next), 2026-12-24, \'2026-12-24 09:30\', RFC 3339; what has passed is now' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l delay -d 'Let it wait so long, by this machine\'s clock: 5m, 12h' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l attr -d 'Add an extension attribute' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l content-type -d 'The data\'s media type' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l schema -d 'The data\'s schema, a URI' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l timeout -d 'Give up on a store that does not answer after this long' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l durability -d '\'full\': survives a power cut; \'none\': survives the process' -r -f -a "full\t''
none\t''"
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l if-exists -d 'An id that another event has: \'error\', or \'ok\' to leave it at that (default: error)' -r -f -a "error\t''
ok\t''"
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l on-error -d 'A line that is no event: \'stop\', or \'skip\' to go on with the next (default: stop)' -r -f -a "stop\t''
skip\t''"
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l rejects -d 'Append the lines that --on-error skip passes over to this file' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l text -d 'DATA is text, not JSON'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l lossy -d 'With --text: bytes that are not UTF-8 become U+FFFD'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -s q -l quiet -d 'Print nothing'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l json -d 'Print the event instead of its id'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s g -l group -d 'Run ad hoc, as this group; the command follows \'--\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s t -l type -d 'Wanted types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l not -d 'Unwanted types' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l where -d 'Only events for which this holds, in CEL over the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l from -d 'Where a new group starts: earliest, now, or a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l shards -d 'Into how many shards a new group is split, for good: so many workers can share it' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s j -l concurrency -d 'Handlers at a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l batch -d 'Up to so many events for one run of the handler: NDJSON on its stdin' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l linger -d 'How long the first event of a batch waits for others [default: 1s]' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l timeout -d 'A handler\'s time limit' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l max-attempts -d 'After so many failed attempts an event is a dead letter' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l backoff -d 'The shortest and the longest pause between attempts' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l dead-on -d 'Exit codes that mean dead at once' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l shell -d 'The command as one line for the shell, in place of \'-- CMD\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l cwd -d 'Run the command in this folder' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l poll -d 'Look this often where the file system gives no hints' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l stop-timeout -d 'How long running handlers may go on after a stop' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l log -d 'How to log to stderr' -r -f -a "human\t'Lines for people'
json\t'One JSON document a line'"
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l metrics -d 'Serve /metrics for Prometheus, and /healthz; a port alone is on the loopback interface' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l ordered -d 'One at a time for each ordering key, in the order of emission; with -j N, so many keys side by side'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l no-hints -d 'Do not use inotify'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l dry-run -d 'Show what would run, and change nothing'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s q -l quiet -d 'Print only failures'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s g -l group -d 'Run ad hoc, as this group; the command follows \'--\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s t -l type -d 'Wanted types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l not -d 'Unwanted types' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l where -d 'Only events for which this holds, in CEL over the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l from -d 'Where a new group starts: earliest, now, or a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l shards -d 'Into how many shards a new group is split, for good: so many workers can share it' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s j -l concurrency -d 'Handlers at a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l batch -d 'Up to so many events for one run of the handler: NDJSON on its stdin' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l linger -d 'How long the first event of a batch waits for others [default: 1s]' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l timeout -d 'A handler\'s time limit' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l max-attempts -d 'After so many failed attempts an event is a dead letter' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l backoff -d 'The shortest and the longest pause between attempts' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l dead-on -d 'Exit codes that mean dead at once' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l shell -d 'The command as one line for the shell, in place of \'-- CMD\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l cwd -d 'Run the command in this folder' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l poll -d 'Look this often where the file system gives no hints' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l stop-timeout -d 'How long running handlers may go on after a stop' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l log -d 'How to log to stderr' -r -f -a "human\t'Lines for people'
json\t'One JSON document a line'"
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l max -d 'Start at most so many handlers' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l for -d 'Start no handler after so long' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l ordered -d 'One at a time for each ordering key, in the order of emission; with -j N, so many keys side by side'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l no-hints -d 'Do not use inotify'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l dry-run -d 'Show what would run, and change nothing'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s q -l quiet -d 'Print only failures'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l wait -d 'Also wait for later retries and for other workers'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l strict -d 'Exit 3 unless everything that was taken ended done'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand tail" -s t -l type -d 'Only these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l not -d 'Not these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -s n -l lines -d 'Begin with the last N events [default: 10, or all with --since]' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l since -d 'Begin with the events from this time on: 1h, 09:30, 2026-11-20, RFC 3339' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l poll -d 'Look this often where the store gives no hints' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l json -d 'Print each event\'s JSON document, one a line'
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l no-hints -d 'Do not use hints'
complete -c evbus -n "__fish_evbus_using_subcommand tail" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand ls" -s t -l type -d 'Only these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l not -d 'Not these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l since -d 'From this time on' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l until -d 'Up to this time' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -s n -l limit -d 'At most so many, the newest; 0: all' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l scheduled -d 'Events that wait for their time, the next first; --since and --until then say when they are due, as --at and --delay of emit do'
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l json -d 'Print each event\'s JSON document, one a line'
complete -c evbus -n "__fish_evbus_using_subcommand ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand get" -l field -d 'Print only this field, such as data.path or data.items.0: a string without its quotes' -r
complete -c evbus -n "__fish_evbus_using_subcommand get" -l source -d 'The event\'s source, for an id that its emitter made up' -r
complete -c evbus -n "__fish_evbus_using_subcommand get" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand get" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand get" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -l source -d 'The events\' source, for ids that their emitter made up' -r
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -s q -l quiet -d 'Print nothing'
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand status" -l rate -d 'Measure RATE, over this long' -r
complete -c evbus -n "__fish_evbus_using_subcommand status" -l max-lag -d 'Exit 3 if the oldest event that a group has not done is older' -r
complete -c evbus -n "__fish_evbus_using_subcommand status" -l max-dead -d 'Exit 3 if a group has more dead letters' -r
complete -c evbus -n "__fish_evbus_using_subcommand status" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand status" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand status" -l cost -d 'Also tell the requests that the groups\' workers have made of a bucket, and about what they cost'
complete -c evbus -n "__fish_evbus_using_subcommand status" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand status" -l prom -d 'Print metrics in the Prometheus text format'
complete -c evbus -n "__fish_evbus_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "ls" -d 'List the groups: what each wants, its shards, where it started'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "create" -d 'Make a group'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "set" -d 'Change what a group wants'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "pause" -d 'Let a group\'s workers start nothing'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "resume" -d 'Let a paused group go on'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "reset" -d 'Process again everything after a time, and nothing before it'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "rm" -d 'Remove a group, its progress and its dead letters'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from ls" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from ls" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from ls" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -s t -l type -d 'Only these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l not -d 'Not these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l where -d 'Only events for which this holds, in CEL over the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l shards -d 'Into how many shards its events are split, for good: so many workers can share it' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l from -d 'Where it starts: earliest, now, or a time (needed if stored events match)' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -s t -l type -d 'Only these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -l not -d 'Not these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -l where -d 'Only events for which this holds, in CEL over the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from pause" -l why -d 'What status is to say about it' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from pause" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from pause" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from pause" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from resume" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from resume" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from resume" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -l to -d 'Where to go on: earliest, now, or a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -l yes -d 'Do not ask'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from rm" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from rm" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from rm" -l yes -d 'Do not ask'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -f -a "ls" -d 'List dead letters, oldest event first'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -f -a "show" -d 'Show what the handler said about a dead letter, and the event'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -f -a "redrive" -d 'Put dead letters back to work'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -f -a "rm" -d 'Throw dead letters away'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from ls" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from ls" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from ls" -l json -d 'Print one JSON document a line'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from show" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from show" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON document a line'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -s t -l type -d 'Those of these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -l all -d 'All of the group\'s'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -l yes -d 'Do not ask'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -l all -d 'All of the group\'s'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -l yes -d 'Do not ask'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l keep -d 'Keep everything that is younger: 7d, 24h, 2w' -r
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l dry-run -d 'Only say what would be deleted, and who holds back the rest'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l yes -d 'Do not ask'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -s q -l quiet -d 'Print nothing'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand doctor" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand doctor" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand doctor" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand check" -s t -l type -d 'Only these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l not -d 'Not these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l where -d 'Only events for which this holds, in CEL over the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l event -d 'Test the filter with this event: a file, or \'-\' for stdin' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand check" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand completions" -l bus -d 'The bus: a path with a \'/\', file:///path, s3://bucket/prefix, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand completions" -l config -d 'The config file (else EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand completions" -s h -l help -d 'Print help'
