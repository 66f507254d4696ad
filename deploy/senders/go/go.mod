module sidetape/senders

go 1.19
