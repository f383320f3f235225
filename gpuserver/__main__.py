"""python -m gpuserver …"""

from gpuserver.cli import main

if __name__ == "__main__":
    main()
