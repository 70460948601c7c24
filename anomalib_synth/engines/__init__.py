"""Does the work of the commands that draw or train many times: in this process, in local processes, on Ray."""
