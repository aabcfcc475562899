# Varnish as compare.py measures it: its built-in rules, without what would make answers differ from the others'.
vcl 4.1;

backend origin {
    .host = "127.0.0.1";
    .port = "18370";
}
