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

complete -c evbus -n "__fish_evbus_needs_command" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_needs_command" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_needs_command" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_needs_command" -s V -l version -d 'Print version'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "init" -d 'Create a bus'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "emit" -d 'Write one event, or with --ndjson one per line'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "watch" -d 'Run a command for each event, until stopped'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "drain" -d 'Run what is due now, then end'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "serve" -d 'Take events in and give them out over HTTP, until stopped'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "tail" -d 'Print events as they come'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "ls" -d 'List events, oldest first'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "get" -d 'Print one event exactly as stored'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "cancel" -d 'Cancel events that wait for their time'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "status" -d 'Show each group\'s state, lag, retries, dead letters and owner'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "group" -d 'List, create, change, pause, reset and remove groups'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "history" -d 'Show what groups have run: when, how long, and how it ended'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "dead" -d 'List, show, redrive and remove dead letters'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "prune" -d 'Delete old events that every group has processed'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "replay" -d 'Print the events of an archive, or run a command for events of the bus'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "relay" -d 'Move the rows of an outbox, a table in an application\'s database, to the bus'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "source" -d 'Emit an event for each file that has finished arriving in a folder, or in a bucket'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "copy" -d 'Copy events from one bus to another, of any kinds'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "doctor" -d 'Check store, mount, clock, limits, permissions and the files on the bus'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "upgrade" -d 'Bring a bus to the newest format'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "check" -d 'Check the config, or whether a filter matches an event'
complete -c evbus -n "__fish_evbus_needs_command" -f -a "completions" -d 'Print a shell\'s completion script'
complete -c evbus -n "__fish_evbus_using_subcommand init" -l shared -d 'Let this Unix group write, whatever the umask: a name, a number, or \'group\' for the folder\'s own' -r
complete -c evbus -n "__fish_evbus_using_subcommand init" -l max-event -d 'Set the largest event, fixed at creation [default: 1MiB]' -r
complete -c evbus -n "__fish_evbus_using_subcommand init" -l segments -d 'Put many events of a bulk emit into one object (\'on\') or make one for each (\'off\'), fixed at creation [default: on]' -r -f -a "on\t''
off\t''"
complete -c evbus -n "__fish_evbus_using_subcommand init" -l max-depth -d 'Let at most so many events cause each other, one after the other, fixed at creation; 0 for any number [default: 32]' -r
complete -c evbus -n "__fish_evbus_using_subcommand init" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand init" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand init" -l print-sql -d 'Print the SQL that makes the tables in a PostgreSQL database, and make nothing'
complete -c evbus -n "__fish_evbus_using_subcommand init" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -s f -d 'Add a string field to the data' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -s F -d 'Add a field of any JSON type to the data' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l binary -d 'Take the data from a file\'s bytes (\'@FILE\', or \'-\' for stdin)' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l ndjson -d 'Emit one event per line, or per element of a JSON array, gzipped or not, from stdin or @FILE: CloudEvents, or with TYPE only their data' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l id -d 'Set the id; a repeat with the same id and source is harmless' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l source -d 'Set the source, a URI reference (default: //HOST)' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l subject -d 'Set the subject: what the event is about' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l key -d 'Set the ordering key (default: the subject)' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l time -d 'Set when it happened (default: now): 10m ago, 09:30, 2026-11-20, RFC 3339' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l at -d 'Deliver at this time: 02:00 (next), 2026-12-24, \'2026-12-24 09:30\', RFC 3339; a past time means now' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l delay -d 'Deliver after this long, by this machine\'s clock: 5m, 12h' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l attr -d 'Add an extension attribute' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l content-type -d 'Set the data\'s media type' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l schema -d 'Set the data\'s schema, a URI' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l timeout -d 'Fail if the store does not answer for this long' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l durability -d 'Survive a power cut (\'full\') or only the process\'s end (\'none\')' -r -f -a "full\t''
none\t''"
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l if-exists -d 'Handle an id that another event has: fail (\'error\') or ignore it (\'ok\') (default: error)' -r -f -a "error\t''
ok\t''"
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l on-error -d 'Handle a line that is not an event: \'stop\', or \'skip\' it (default: stop)' -r -f -a "stop\t''
skip\t''"
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l rejects -d 'Append the lines that --on-error skip skips to this file' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l text -d 'Take DATA as text, not as JSON'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l each -d 'Make a file for each event, instead of one for many'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l lossy -d 'With --text, replace bytes that are not UTF-8 by U+FFFD'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -s q -l quiet -d 'Print nothing'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l json -d 'Print the event instead of its id'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -l dry-run -d 'Print the event as it would be, and emit nothing; whether its id is taken is not looked up'
complete -c evbus -n "__fish_evbus_using_subcommand emit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s g -l group -d 'Run the command after \'--\' as this group, without the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s t -l type -d 'Select these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l not -d 'Exclude these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l where -d 'Select events by a CEL condition on the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l from -d 'Start a new group here: earliest, now, or a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l shards -d 'Set a new group\'s shards, fixed at creation; at most this many workers can share the group' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s j -l concurrency -d 'Run at most N handlers at a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l batch -d 'Pass up to N events to one run of the handler, as NDJSON on stdin' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l linger -d 'Let a batch\'s first event wait this long for others [default: 1s]' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l latest -d 'Of events of one key that wait, run only the last: subject, key, type, or an expression in CEL' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l settle -d 'Run it once no other has followed for this time' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l timeout -d 'Limit the time of a handler' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l max-attempts -d 'Make an event a dead letter after N failed attempts' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l backoff -d 'Wait at least MIN and at most MAX between attempts' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l dead-on -d 'Make an event a dead letter at once on these exit codes, or with --url on these statuses' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l shell -d 'Run this shell line instead of \'-- CMD\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l url -d 'POST each event to this URL instead of running \'-- CMD\'; env:NAME or file:PATH says where it is' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l secret -d 'Sign each request (Standard Webhooks) by the secret at env:NAME or file:PATH; repeat to replace one by another' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l format -d 'Send the event as one JSON document, or its data with its attributes as headers [default: structured]' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l cwd -d 'Run the command in this folder' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l poll -d 'Look this often if the file system gives no hints' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l stop-timeout -d 'Let running handlers go on this long after a stop' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l log -d 'Set the format of the log on stderr' -r -f -a "human\t'Lines of text'
json\t'One JSON document per line'"
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l metrics -d 'Serve /metrics for Prometheus, and /healthz; a port alone means the loopback interface' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l once -d 'Run the handler for this one event now, outside of the group, and end: nothing is recorded' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l ordered -d 'Run events of one ordering key one at a time, in the order of emission; -j N runs N keys side by side'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l no-history -d 'Keep no history of the runs (see history)'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l no-hints -d 'Do not use inotify'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l dry-run -d 'Show what would run, without changes'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s q -l quiet -d 'Print only failures'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -l reload -d 'Reload the config when its file changes, as on HUP to a daemon'
complete -c evbus -n "__fish_evbus_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s g -l group -d 'Run the command after \'--\' as this group, without the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s t -l type -d 'Select these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l not -d 'Exclude these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l where -d 'Select events by a CEL condition on the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l from -d 'Start a new group here: earliest, now, or a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l shards -d 'Set a new group\'s shards, fixed at creation; at most this many workers can share the group' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s j -l concurrency -d 'Run at most N handlers at a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l batch -d 'Pass up to N events to one run of the handler, as NDJSON on stdin' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l linger -d 'Let a batch\'s first event wait this long for others [default: 1s]' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l latest -d 'Of events of one key that wait, run only the last: subject, key, type, or an expression in CEL' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l settle -d 'Run it once no other has followed for this time' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l timeout -d 'Limit the time of a handler' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l max-attempts -d 'Make an event a dead letter after N failed attempts' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l backoff -d 'Wait at least MIN and at most MAX between attempts' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l dead-on -d 'Make an event a dead letter at once on these exit codes, or with --url on these statuses' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l shell -d 'Run this shell line instead of \'-- CMD\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l url -d 'POST each event to this URL instead of running \'-- CMD\'; env:NAME or file:PATH says where it is' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l secret -d 'Sign each request (Standard Webhooks) by the secret at env:NAME or file:PATH; repeat to replace one by another' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l format -d 'Send the event as one JSON document, or its data with its attributes as headers [default: structured]' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l cwd -d 'Run the command in this folder' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l poll -d 'Look this often if the file system gives no hints' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l stop-timeout -d 'Let running handlers go on this long after a stop' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l log -d 'Set the format of the log on stderr' -r -f -a "human\t'Lines of text'
json\t'One JSON document per line'"
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l max -d 'Start at most N handlers' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l for -d 'Start no handler after this time' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l ordered -d 'Run events of one ordering key one at a time, in the order of emission; -j N runs N keys side by side'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l no-history -d 'Keep no history of the runs (see history)'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l no-hints -d 'Do not use inotify'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l dry-run -d 'Show what would run, without changes'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s q -l quiet -d 'Print only failures'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l wait -d 'Also wait for later retries and for other workers'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -l strict -d 'Exit 3 unless every event that was run ended done'
complete -c evbus -n "__fish_evbus_using_subcommand drain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand serve" -l listen -d 'Listen here: a port of the loopback interface, ADDRESS:PORT, or unix:PATH; may be repeated' -r
complete -c evbus -n "__fish_evbus_using_subcommand serve" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand serve" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand serve" -s q -l quiet -d 'Do not print where it listens'
complete -c evbus -n "__fish_evbus_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand tail" -s t -l type -d 'Select these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l not -d 'Exclude these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -s n -l lines -d 'Start with the last N events [default: 10, or all with --since]' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l since -d 'Start with the events from this time on: 1h, 09:30, 2026-11-20, RFC 3339' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l poll -d 'Look this often if the store gives no hints' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l json -d 'Print each event\'s JSON document, one per line'
complete -c evbus -n "__fish_evbus_using_subcommand tail" -l no-hints -d 'Do not use hints'
complete -c evbus -n "__fish_evbus_using_subcommand tail" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand ls" -s t -l type -d 'Select these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l not -d 'Exclude these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l since -d 'Show events from this time on' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l until -d 'Show events up to this time' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -s n -l limit -d 'Show at most N events, the newest; 0 for all' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l scheduled -d 'Show events that wait for their time, the next first; --since and --until then select by the due time, in the forms of emit\'s --at and --delay'
complete -c evbus -n "__fish_evbus_using_subcommand ls" -l json -d 'Print each event\'s JSON document, one per line'
complete -c evbus -n "__fish_evbus_using_subcommand ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand get" -l field -d 'Print only this field, such as data.path or data.items.0; strings without quotes' -r
complete -c evbus -n "__fish_evbus_using_subcommand get" -l source -d 'Look up an id that the emitter chose with this source' -r
complete -c evbus -n "__fish_evbus_using_subcommand get" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand get" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand get" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -l source -d 'Look up ids that the emitter chose with this source' -r
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -s q -l quiet -d 'Print nothing'
complete -c evbus -n "__fish_evbus_using_subcommand cancel" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand status" -l rate -d 'Measure RATE for this long' -r
complete -c evbus -n "__fish_evbus_using_subcommand status" -l max-lag -d 'Exit 3 if a group\'s oldest event that is not done is older' -r
complete -c evbus -n "__fish_evbus_using_subcommand status" -l max-dead -d 'Exit 3 if a group has more dead letters, or a relay more parked rows' -r
complete -c evbus -n "__fish_evbus_using_subcommand status" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand status" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand status" -l cost -d 'Also show the requests to a bucket, and about what they cost: of the events that are there, and of the groups\' workers'
complete -c evbus -n "__fish_evbus_using_subcommand status" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand status" -l prom -d 'Print metrics in the Prometheus text format'
complete -c evbus -n "__fish_evbus_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "ls" -d 'List the groups with their filter, shards and start'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "create" -d 'Create a group'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "set" -d 'Change a group\'s filter'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "pause" -d 'Stop a group\'s workers from starting handlers'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "resume" -d 'Let a paused group\'s workers continue'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "reset" -d 'Process everything after a time again, and nothing before it'
complete -c evbus -n "__fish_evbus_using_subcommand group; and not __fish_seen_subcommand_from ls create set pause resume reset rm" -f -a "rm" -d 'Remove a group, its progress and its dead letters'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from ls" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from ls" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from ls" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -s t -l type -d 'Select these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l not -d 'Exclude these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l where -d 'Select events by a CEL condition on the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l shards -d 'Set the number of shards, fixed at creation; at most this many workers can share the group' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l from -d 'Set the start: earliest, now, or a time (needed if stored events match)' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -s t -l type -d 'Select these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -l not -d 'Exclude these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -l where -d 'Select events by a CEL condition on the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from pause" -l why -d 'Set the reason that status shows' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from pause" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from pause" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from pause" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from resume" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from resume" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from resume" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -l to -d 'Set the new position: earliest, now, or a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -l yes -d 'Do not ask for confirmation'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from reset" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from rm" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from rm" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from rm" -l yes -d 'Do not ask for confirmation'
complete -c evbus -n "__fish_evbus_using_subcommand group; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand history" -s n -l limit -d 'Show the last N runs, and with --follow those that come; 0: all' -r
complete -c evbus -n "__fish_evbus_using_subcommand history" -l since -d 'Only runs from this time on: 1h, 09:30, 2026-11-20, RFC 3339' -r
complete -c evbus -n "__fish_evbus_using_subcommand history" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand history" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand history" -l failed -d 'Only runs that have failed'
complete -c evbus -n "__fish_evbus_using_subcommand history" -s f -l follow -d 'Go on with runs as they end'
complete -c evbus -n "__fish_evbus_using_subcommand history" -l json -d 'Print each run as a JSON document, one per line'
complete -c evbus -n "__fish_evbus_using_subcommand history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -f -a "ls" -d 'List dead letters, oldest event first'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -f -a "show" -d 'Show a dead letter: the handler\'s last output and the event'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -f -a "redrive" -d 'Put dead letters back to work'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and not __fish_seen_subcommand_from ls show redrive rm" -f -a "rm" -d 'Remove dead letters for good'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from ls" -l relay -d 'Show the parked rows of a relay of the config: [relays.NAME]' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from ls" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from ls" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from ls" -l json -d 'Print one JSON document per line'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from show" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from show" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON document per line'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -s t -l type -d 'Redrive letters whose event type matches' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -l relay -d 'Put back all parked rows of a relay of the config: [relays.NAME]' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -l all -d 'Redrive all letters of the group'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -l yes -d 'Do not ask for confirmation'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from redrive" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -l all -d 'Remove all letters of the group'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -l yes -d 'Do not ask for confirmation'
complete -c evbus -n "__fish_evbus_using_subcommand dead; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l keep -d 'Keep events younger than this: 7d, 24h, 2w' -r
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l archive -d 'Write what is deleted to this archive first: a folder or a place in a bucket of its own, made if there is none (see replay)' -r
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l dry-run -d 'Show what would be deleted, and which groups hold back the rest'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l yes -d 'Do not ask for confirmation'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -s q -l quiet -d 'Print nothing'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand replay" -l archive -d 'The archive: a folder or a place in a bucket' -r
complete -c evbus -n "__fish_evbus_using_subcommand replay" -s t -l type -d 'Select these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand replay" -l not -d 'Exclude these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand replay" -l where -d 'Select events by a CEL condition on the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand replay" -l since -d 'From this time on: 1h, 09:30, 2026-11-20, RFC 3339' -r
complete -c evbus -n "__fish_evbus_using_subcommand replay" -l until -d 'Up to this time' -r
complete -c evbus -n "__fish_evbus_using_subcommand replay" -s n -l limit -d 'Take at most N events' -r
complete -c evbus -n "__fish_evbus_using_subcommand replay" -s j -l concurrency -d 'Run at most N commands at a time' -r
complete -c evbus -n "__fish_evbus_using_subcommand replay" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand replay" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l from -d 'The database of the outbox: postgres://host/database, sqlite:///file, or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l table -d 'The table [default: evbus.outbox, or evbus_outbox in a SQLite file]' -r
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l map -d 'Which columns of the table mean what: id=COLUMN,type=COLUMN,data=COLUMN,… of n, id, type, source, subject, key, data, attr, time' -r
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l preset -d 'The columns of another program\'s table: debezium' -r
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l source -d 'The source of rows that name none, a URI reference [default: /DATABASE/TABLE]' -r
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l once -d 'Move what is there, then end'
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l parked -d 'Print the rows that are no events, one JSON line each, with the reason'
complete -c evbus -n "__fish_evbus_using_subcommand relay" -l redrive -d 'Put the parked rows back, to be tried again'
complete -c evbus -n "__fish_evbus_using_subcommand relay" -s q -l quiet -d 'Print no summary'
complete -c evbus -n "__fish_evbus_using_subcommand relay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand source" -s t -l type -d 'The events\' type' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -l match -d 'Only files that match, in the syntax of gitignore(5)' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -l ignore -d 'Not files that match; !PATTERN takes back an earlier one' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -l settle -d 'How long a file must stand still whose writer does not tell [default: 2s]' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -l poll -d 'Look through it as often, and do not rely on what the kernel tells' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -l events -d 'Which changes become events: arrived, changed, removed [default: arrived]' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -l after -d 'What is done with a file once the groups are done with its event: leave, delete, move:FOLDER' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -s g -l group -d 'A group that must be done with the event before' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -l name -d 'The source\'s name, by which what was emitted is known [default: made of the folder\'s path]' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand source" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand source" -s r -l recursive -d 'Look into the folders below it, too'
complete -c evbus -n "__fish_evbus_using_subcommand source" -l sha256 -d 'Know a version by its content: what is written once more is no other'
complete -c evbus -n "__fish_evbus_using_subcommand source" -l once -d 'Emit what is there, then end'
complete -c evbus -n "__fish_evbus_using_subcommand source" -s q -l quiet -d 'Print no summary'
complete -c evbus -n "__fish_evbus_using_subcommand source" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand copy" -s t -l type -d 'Select these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand copy" -l not -d 'Exclude these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand copy" -l since -d 'From this time on: 1h, 09:30, 2026-11-20, RFC 3339' -r
complete -c evbus -n "__fish_evbus_using_subcommand copy" -l until -d 'Up to this time' -r
complete -c evbus -n "__fish_evbus_using_subcommand copy" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand copy" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand copy" -l follow -d 'Go on with what comes, until a signal'
complete -c evbus -n "__fish_evbus_using_subcommand copy" -s q -l quiet -d 'Print no summary'
complete -c evbus -n "__fish_evbus_using_subcommand copy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand doctor" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand doctor" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand doctor" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand upgrade" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand upgrade" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand upgrade" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand check" -s t -l type -d 'Select these types, such as \'order.*\' or \'backup.**\' (repeat, or separate by commas)' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l not -d 'Exclude these types' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l where -d 'Select events by a CEL condition on the event, such as \'data.width > 256\'' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l event -d 'Test the filter with this event: a file, or \'-\' for stdin' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand check" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand check" -l json -d 'Print one JSON document'
complete -c evbus -n "__fish_evbus_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c evbus -n "__fish_evbus_using_subcommand completions" -l bus -d 'Use this bus: a path with a \'/\', file:///path, s3://bucket/prefix, postgres://host/database, sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config' -r
complete -c evbus -n "__fish_evbus_using_subcommand completions" -l config -d 'Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml, /etc/evbus/evbus.toml)' -r -F
complete -c evbus -n "__fish_evbus_using_subcommand completions" -s h -l help -d 'Print help'
