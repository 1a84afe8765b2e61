{{/*
CURVE keys. ZeroMQ wants X25519 keys. Templates cannot make these, but they can make Ed25519 keys, and the
curves are the same one in other coordinates: the Ed25519 key with seed s and public y is the X25519 key with

    secret = SHA-512(s), the first 32 bytes        public = (1 + y) / (1 - y)   modulo p = 2^255 - 19

A number modulo p is a list of 15 limbs of 17 bits, lowest first. 2^255 = 19, so a product's limb 15 + i
counts 19 times into limb i; every sum of products stays below 2^62. Each helper takes a dict and leaves its result in
it under "r". The tests compare the keys with libzmq's own arithmetic.
*/}}

{{/* Carries, from .r (limbs of any size below 2^62) and .carry into limb 0; what leaves limb 14 is in .carry. */}}
{{- define "longwave.f.carry" -}}
{{- $carry := .carry -}}{{- $limbs := list -}}
{{- range .r -}}
{{- $sum := add . $carry -}}
{{- $carry = div $sum 131072 -}}
{{- $limbs = append $limbs (mod $sum 131072) -}}
{{- end -}}
{{- $_ := set . "r" $limbs -}}{{- $_ := set . "carry" $carry -}}
{{- end -}}

{{/* .r = .a .b */}}
{{- define "longwave.f.mul" -}}
{{- $wrapped := list -}}
{{- range .b -}}{{- $wrapped = append $wrapped (mul 19 .) -}}{{- end -}}
{{- $b := concat $wrapped .b -}}
{{- $a := .a -}}{{- $limbs := list -}}
{{- range $k := untilStep 15 30 1 -}}
{{- $sum := 0 -}}
{{- range $i, $limb := $a -}}{{- $sum = add $sum (mul $limb (index $b (sub $k $i))) -}}{{- end -}}
{{- $limbs = append $limbs $sum -}}
{{- end -}}
{{- $_ := set . "r" $limbs -}}{{- $_ := set . "carry" 0 -}}
{{- template "longwave.f.carry" . -}}
{{- $_ := set . "carry" (mul 19 .carry) -}}
{{- template "longwave.f.carry" . -}}
{{- $_ := set . "r" (prepend (rest .r) (add (first .r) (mul 19 .carry))) -}}
{{- end -}}

{{/*
.r = 1 / .x = x^(2^255 - 21). A step (name from n times) is name = from^(2^n) times; "onesN" is x^(2^N - 1).
*/}}
{{- define "longwave.f.inverse" -}}
{{- $powers := dict "1" .x -}}
{{- range list (list "2" "1" 1 "") (list "9" "2" 2 "1") (list "11" "9" 0 "2") (list "ones5" "11" 1 "9") (list "ones10" "ones5" 5 "ones5") (list "ones20" "ones10" 10 "ones10") (list "ones40" "ones20" 20 "ones20") (list "ones50" "ones40" 10 "ones10") (list "ones100" "ones50" 50 "ones50") (list "ones200" "ones100" 100 "ones100") (list "ones250" "ones200" 50 "ones50") (list "r" "ones250" 5 "11") -}}
{{- $n := dict "r" (get $powers (index . 1)) -}}
{{- range until (index . 2) -}}
{{- $_ := set $n "a" $n.r -}}{{- $_ := set $n "b" $n.r -}}
{{- template "longwave.f.mul" $n -}}
{{- end -}}
{{- with index . 3 -}}
{{- $_ := set $n "a" $n.r -}}{{- $_ := set $n "b" (get $powers .) -}}
{{- template "longwave.f.mul" $n -}}
{{- end -}}
{{- $_ := set $powers (index . 0) $n.r -}}
{{- end -}}
{{- $_ := set . "r" $powers.r -}}
{{- end -}}

{{/* .r = limbs of .hex, 32 bytes, lowest first; the highest bit is left out. */}}
{{- define "longwave.f.decode" -}}
{{- $limbs := list -}}{{- $value := 0 -}}{{- $scale := 1 -}}{{- $hex := .hex -}}
{{- range $i := until 32 -}}
{{- $byte := int64 (printf "0x%s" (substr (mul 2 $i | int) (add 2 (mul 2 $i) | int) $hex)) -}}
{{- if eq $i 31 -}}{{- $byte = mod $byte 128 -}}{{- end -}}
{{- $value = add $value (mul $byte $scale) -}}
{{- $scale = mul $scale 256 -}}
{{- if or (ge $scale 131072) (eq $i 31) -}}
{{- $limbs = append $limbs (mod $value 131072) -}}
{{- $value = div $value 131072 -}}
{{- $scale = div $scale 131072 -}}
{{- end -}}
{{- end -}}
{{- $_ := set . "r" $limbs -}}
{{- end -}}

{{/* .hex = 32 bytes of the number .r, which becomes smaller than p first. */}}
{{- define "longwave.f.encode" -}}
{{- $n := dict "r" .r "carry" 0 -}}
{{- range until 2 -}}
{{- template "longwave.f.carry" $n -}}{{- $_ := set $n "carry" (mul 19 $n.carry) -}}
{{- end -}}
{{- template "longwave.f.carry" $n -}}
{{- $over := dict "r" $n.r "carry" 19 -}}{{- template "longwave.f.carry" $over -}}
{{- $_ := set $n "carry" (mul 19 $over.carry) -}}{{- template "longwave.f.carry" $n -}}
{{- $hex := "" -}}{{- $value := 0 -}}{{- $scale := 1 -}}
{{- range $n.r -}}
{{- $value = add $value (mul . $scale) -}}
{{- $scale = mul $scale 131072 -}}
{{- range until 3 -}}
{{- if ge $scale 256 -}}
{{- $hex = printf "%s%02x" $hex (mod $value 256) -}}
{{- $value = div $value 256 -}}{{- $scale = div $scale 256 -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set . "hex" (printf "%s%02x" $hex $value) -}}
{{- end -}}

{{/* .z85 = .hex, 32 bytes, in ZeroMQ's base 85 (RFC 32). */}}
{{- define "longwave.z85" -}}
{{- $digits := "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#" -}}
{{- $hex := .hex -}}{{- $text := "" -}}
{{- range $i := until 8 -}}
{{- $word := int64 (printf "0x%s" (substr (mul 8 $i | int) (add 8 (mul 8 $i) | int) $hex)) -}}
{{- range list 52200625 614125 7225 85 1 -}}
{{- $digit := mod (div $word .) 85 | int -}}
{{- $text = printf "%s%s" $text (substr $digit (add1 $digit | int) $digits) -}}
{{- end -}}
{{- end -}}
{{- $_ := set . "z85" $text -}}
{{- end -}}

{{/* .secret, .public = a new pair, both in base 85. */}}
{{- define "longwave.curvePair" -}}
{{- $pem := genPrivateKey "ed25519" -}}
{{- $seed := $pem | replace "-----BEGIN PRIVATE KEY-----" "" | replace "-----END PRIVATE KEY-----" "" | nospace | b64dec | substr 16 48 -}}
{{- $secret := dict "hex" (sha512sum $seed | substr 0 64) -}}
{{- template "longwave.z85" $secret -}}
{{- $pemCertificate := (genSelfSignedCertWithKey "curve" nil nil 1 $pem).Cert -}}
{{- $certificate := $pemCertificate | replace "-----BEGIN CERTIFICATE-----" "" | replace "-----END CERTIFICATE-----" "" | nospace | b64dec | printf "%x" -}}
{{- $y := dict "hex" (index (splitList "302a300506032b6570032100" $certificate) 1 | substr 0 64) -}}
{{- template "longwave.f.decode" $y -}}
{{- /* 1 - y as 1 - y + 2p, so that no limb is negative. */ -}}
{{- $below := list -}}
{{- range $i, $limb := $y.r -}}{{- $below = append $below (sub (ternary 262107 262142 (eq $i 0)) $limb) -}}{{- end -}}
{{- $quotient := dict "x" $below -}}
{{- template "longwave.f.inverse" $quotient -}}
{{- $public := dict "a" $quotient.r "b" (prepend (rest $y.r) (add1 (first $y.r))) -}}
{{- template "longwave.f.mul" $public -}}
{{- template "longwave.f.encode" $public -}}
{{- template "longwave.z85" $public -}}
{{- $_ := set . "secret" $secret.z85 -}}{{- $_ := set . "public" $public.z85 -}}
{{- end -}}
