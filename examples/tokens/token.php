<?php
// composer require firebase/php-jwt; php token.php USER PATTERN...
require 'vendor/autoload.php';

use Firebase\JWT\JWT;

$claims = [
    'sub' => $argv[1],
    'exp' => time() + 3600,
    'ringside' => ['subscribe' => array_slice($argv, 2)],
];
echo JWT::encode($claims, getenv('JWT_SECRET'), 'HS256'), PHP_EOL;
