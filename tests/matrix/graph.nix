# Five paths that refer to each other and to themselves, without nixpkgs.
let
  mk =
    name: script:
    derivation {
      name = "matrix-${name}";
      system = builtins.currentSystem;
      builder = "/bin/sh";
      args = [
        "-ec"
        script
      ];
      PATH = "/usr/bin:/bin";
    };
  leaf = mk "leaf" ''
    mkdir -p $out/hollow $out/bin
    : > $out/nothing
    printf '#!/bin/sh\necho hello\n' > $out/bin/hello
    chmod +x $out/bin/hello
    ln -s hello $out/bin/hi
    echo $out > $out/myself
    head -c 1000000 /dev/zero > $out/zeros
    head -c 1000000 /dev/urandom > $out/noise
  '';
  file = mk "file" "echo ${leaf} > $out; chmod +x $out";
  link = mk "link" "ln -s ${leaf}/bin $out";
  middle = mk "middle" ''
    mkdir $out
    ln -s ${link} $out/link
    ln -s /nowhere/at/all $out/dangling
    echo odd > "$out/$(printf 'caf\351')"
  '';
in
mk "top" ''
  mkdir -p $out/share/doc
  ln -s ${middle} $out/share/middle
  echo ${file} ${leaf} $out > $out/share/doc/see-also
''
